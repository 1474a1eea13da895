//! A Lease that several processes share: read, and written only by who has seen the last version.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};

use crate::client::ClientProvider;
use crate::failure::{Failure, FailureKind};

/// How long one question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One Lease of one namespace.
#[derive(Clone)]
pub struct SharedLease {
    clients: Arc<ClientProvider>,
    namespace: String,
    name: String,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It stands there, as this version.
    Done(Box<Lease>),
    /// Somebody else was faster: the Lease has to be read again.
    Conflict,
}

impl SharedLease {
    /// The Lease `name` in `namespace`; it need not exist.
    pub fn new(clients: Arc<ClientProvider>, namespace: String, name: String) -> Self {
        Self {
            clients,
            namespace,
            name,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads it; `None` where there is none.
    ///
    /// # Errors
    /// There is no client, or the server gives no answer.
    pub async fn read(&self) -> Result<Option<Lease>, Failure> {
        self.ask(async |api: Api<Lease>| api.get_opt(&self.name).await)
            .await
    }

    /// Writes it: over the version that it was read with, or as a new one where it has none.
    ///
    /// # Errors
    /// There is no client, or the server gives no answer.
    pub async fn write(&self, lease: &Lease) -> Result<Written, Failure> {
        let params = PostParams::default();
        let is_new = lease.metadata.resource_version.is_none();
        self.ask(async |api: Api<Lease>| {
            let written = if is_new {
                api.create(&params, lease).await
            } else {
                api.replace(&self.name, &params, lease).await
            };
            match written {
                Ok(written) => Ok(Written::Done(Box::new(written))),
                // 404: it was deleted since it was read.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    Ok(Written::Conflict)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Api<Lease>) -> Result<T, kube::Error>,
    ) -> Result<T, Failure> {
        let (client, generation) = self.clients.client().await?;
        let api = Api::namespaced(client, &self.namespace);
        match tokio::time::timeout(CALL_TIMEOUT, question(api)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.clients.failed(generation);
                Err(Failure::from_kube(&error))
            }
            Err(_) => {
                self.clients.failed(generation);
                Err(Failure::new(
                    FailureKind::Unavailable,
                    format!("no answer within {CALL_TIMEOUT:?}"),
                ))
            }
        }
    }
}
