//! Who gets in, as the config has it now: TLS, the CA of clients, names, networks. All of it can change
//! while the cache runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use listener::certificate::Store;
use listener::certificate::files::{CHECK_INTERVAL, Files, read_pem};
use listener::{ClientCertificates, Protocols, Tls};
use policy::config::{CacheTls, ListenAddress, NodeCache};
use tokio::sync::watch;

use super::RoleError;
use crate::api::{Api, Gate};

/// The settings of the door, and what is made of them.
#[derive(Debug)]
pub(super) struct Door {
    addresses: Vec<SocketAddr>,
    store: Arc<Store>,
    wanted: watch::Sender<NodeCache>,
    /// None where connections are plain.
    tls: watch::Sender<Option<Arc<Tls>>>,
    /// What clients are asked for.
    clients: parking_lot::Mutex<ClientCertificates>,
}

impl Door {
    /// What the config says.
    ///
    /// # Errors
    /// The certificate or the CA of clients can't be used.
    pub(super) async fn new(
        node_cache: &NodeCache,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, RoleError> {
        let door = Self {
            addresses,
            store: Arc::default(),
            wanted: watch::Sender::new(node_cache.clone()),
            tls: watch::Sender::new(None),
            clients: parking_lot::Mutex::default(),
        };
        door.take_tls(node_cache.tls.as_ref()).await?;
        Ok(door)
    }

    /// Takes other settings as soon as they can be used. Where the cache would not start with them, for
    /// the addresses that it listens on, everything stays as it is.
    pub(super) fn want(&self, node_cache: &NodeCache) {
        let mut with_addresses = node_cache.clone();
        let required = |address| ListenAddress {
            address,
            required: true,
        };
        with_addresses.listen = self.addresses.iter().copied().map(required).collect();
        if let Some(why) = with_addresses.refusal() {
            tracing::warn!("nodeCache.tls, allow and names stay as they were: {why}");
            return;
        }
        self.wanted.send_replace(node_cache.clone());
    }

    /// What the settings let in.
    pub(super) async fn gate(&self) -> Gate {
        let wanted = self.wanted.borrow().clone();
        gate(&wanted, &self.addresses).await
    }

    /// TLS in use; a change is that it is switched on or off.
    pub(super) fn tls(&self) -> watch::Receiver<Option<Arc<Tls>>> {
        self.tls.subscribe()
    }

    /// Takes new settings, and files that have changed, until it is dropped.
    pub(super) async fn follow(&self, api: &Api) {
        let mut wanted = self.wanted.subscribe();
        let mut reported = None;
        loop {
            let now = wanted.borrow_and_update().clone();
            match self.take_tls(now.tls.as_ref()).await {
                // Only now: who is let in by a certificate must not get in before it is asked for.
                Ok(()) => {
                    api.set_gate(gate(&now, &self.addresses).await);
                    reported = None;
                }
                Err(error) => {
                    let error = error.to_string();
                    if reported.as_ref() != Some(&error) {
                        tracing::warn!("{error}; nodeCache.tls, allow and names stay as they were");
                        reported = Some(error);
                    }
                }
            }
            // Running out is no failure: files are looked at again.
            let _ = tokio::time::timeout(CHECK_INTERVAL, wanted.changed()).await;
        }
    }

    async fn take_tls(&self, wanted: Option<&CacheTls>) -> Result<(), RoleError> {
        let Some(wanted) = wanted else {
            self.switch(None, "connections are plain from now on");
            return Ok(());
        };
        let clients = clients(wanted.client_ca.as_deref()).await?;
        let files = Files {
            certificate: wanted.cert_file.clone(),
            key: wanted.key_file.clone(),
        };
        let is_other = files.load(&self.store).await?;
        let used = self.tls.borrow().clone();
        match used {
            Some(used) if *self.clients.lock() != clients => {
                used.ask_for(&clients)?;
                tracing::info!("clients are asked for other certificates from now on");
            }
            Some(_) => {}
            None => {
                let tls = Tls::new(Arc::clone(&self.store), Protocols::Http1, &clients)?;
                self.switch(Some(Arc::new(tls)), "connections are encrypted from now on");
            }
        }
        *self.clients.lock() = clients;
        if is_other {
            tracing::info!("using the certificate in {}", wanted.cert_file.display());
        }
        Ok(())
    }

    fn switch(&self, tls: Option<Arc<Tls>>, what: &str) {
        let is_changed = self.tls.send_if_modified(|used| {
            let is_changed = used.is_some() != tls.is_some();
            if is_changed {
                *used = tls;
            }
            is_changed
        });
        if is_changed {
            tracing::debug!("{what}");
        }
    }
}

async fn clients(authority: Option<&Path>) -> Result<ClientCertificates, RoleError> {
    let Some(path) = authority else {
        return Ok(ClientCertificates::None);
    };
    let pem = read_pem(path).await.map_err(RoleError::ClientCa)?;
    Ok(ClientCertificates::Required(pem))
}

async fn gate(node_cache: &NodeCache, addresses: &[SocketAddr]) -> Gate {
    let mut names = node_cache.names.clone();
    if let Some(tls) = &node_cache.tls
        && let Ok(pem) = read_pem(&tls.cert_file).await
    {
        names.extend(certificate_names(&pem));
    }
    Gate {
        addresses: addresses.to_vec(),
        names,
        allow: node_cache.allow.clone(),
    }
}

/// The DNS names of the first certificate.
fn certificate_names(pem: &str) -> Vec<String> {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return Vec::new();
    };
    let Ok(certificate) = pem.parse_x509() else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_opens_no_door_that_the_cache_would_not_start_with() {
        let (beyond, here) = ("192.0.2.1:7439", "127.0.0.1:7439");
        for (address, goes_through) in [(beyond, false), (here, true)] {
            let guarded = NodeCache {
                allow: vec!["10.0.0.0/8".parse().unwrap()],
                ..NodeCache::default()
            };
            let door = Door::new(&guarded, vec![address.parse().unwrap()]).await;
            let door = door.unwrap();
            door.want(&NodeCache::default());
            let allow = door.gate().await.allow;
            assert_eq!(allow.is_empty(), goes_through, "{address}");
        }
    }
}
