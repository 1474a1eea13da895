//! Names to addresses by the system's resolver (hosts file and nsswitch included), with an error
//! that can be told apart from a refused connection.

use std::error::Error;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use policy::text::one_line;

/// A name without an address.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} can't be resolved: {reason}; check DNS or /etc/hosts on this node")]
pub(crate) struct NoAddress {
    host: String,
    reason: String,
}

/// Asks `getaddrinfo`.
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let fail = |reason: String| -> Box<dyn Error + Send + Sync> {
                Box::new(NoAddress {
                    host: name.as_str().to_owned(),
                    reason,
                })
            };
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|error| fail(reason(&error.to_string())))?
                .collect();
            if found.is_empty() {
                return Err(fail("it has no address".to_owned()));
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// `getaddrinfo`'s own words, without the prefix that says nothing.
fn reason(text: &str) -> String {
    let text = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(text);
    one_line(text, 100)
}
