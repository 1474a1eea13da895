//! The Secret that the replicas share.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};

use super::rotation::Keys;
use super::{SelfSignedError, api, status};
use listener::certificate::Pem;

/// One Secret of one namespace.
#[derive(Clone)]
pub(super) struct SharedSecret {
    api: Api<Secret>,
    name: String,
}

/// What was found there. No `Debug`: it holds keys.
pub(super) struct Found {
    /// As it was read; `None` where there was none.
    object: Option<Secret>,
    /// What it means; `None` where a part is missing or is no text.
    pub(super) keys: Option<Keys>,
}

impl SharedSecret {
    pub(super) fn new(client: Client, namespace: &str, name: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn read(&self) -> Result<Found, SelfSignedError> {
        let what = format!("read the Secret {}", self.name);
        let object = self.api.get_opt(&self.name).await.map_err(api(what))?;
        let data = object.as_ref().and_then(|secret| secret.data.as_ref());
        Ok(Found {
            keys: data.and_then(keys),
            object,
        })
    }

    /// Writes `keys` over what was `found`, if that is still there.
    ///
    /// # Errors
    /// [`SelfSignedError::Conflict`] when another replica was faster.
    pub(super) async fn write(&self, found: Found, keys: &Keys) -> Result<(), SelfSignedError> {
        let data = Some(data(keys));
        let params = PostParams::default();
        let written = match found.object {
            // It still has the `resourceVersion` that it was read with.
            Some(mut secret) => {
                secret.data = data;
                debug_assert!(secret.resource_version().is_some());
                self.api.replace(&self.name, &params, &secret).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                let secret = Secret {
                    metadata,
                    data,
                    ..Secret::default()
                };
                self.api.create(&params, &secret).await
            }
        };
        match written {
            Ok(_) => Ok(()),
            // 404: it was deleted since it was read.
            Err(error) if matches!(status(&error), Some(404 | 409)) => {
                Err(SelfSignedError::Conflict)
            }
            Err(error) => Err(api(format!("write the Secret {}", self.name))(error)),
        }
    }
}

fn keys(data: &BTreeMap<String, ByteString>) -> Option<Keys> {
    let text = |name: &str| String::from_utf8(data.get(name)?.0.clone()).ok();
    let pem = |chain: &str, key: &str| {
        Some(Pem {
            chain: text(chain)?,
            key: text(key)?,
        })
    };
    Some(Keys {
        authority: pem("ca.crt", "ca.key")?,
        next: pem("next-ca.crt", "next-ca.key"),
        previous: text("previous-ca.crt"),
        serving: pem("tls.crt", "tls.key")?,
    })
}

fn data(keys: &Keys) -> BTreeMap<String, ByteString> {
    let mut data = vec![
        ("ca.crt", &keys.authority.chain),
        ("ca.key", &keys.authority.key),
        ("tls.crt", &keys.serving.chain),
        ("tls.key", &keys.serving.key),
    ];
    if let Some(next) = &keys.next {
        data.extend([("next-ca.crt", &next.chain), ("next-ca.key", &next.key)]);
    }
    if let Some(previous) = &keys.previous {
        data.push(("previous-ca.crt", previous));
    }
    data.into_iter()
        .map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())))
        .collect()
}
