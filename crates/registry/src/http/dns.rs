//! Names to addresses by the system's resolver (hosts file and nsswitch included), with errors that can
//! be told apart from a refused connection. What is checked here is what is connected to: a name that
//! leads elsewhere a moment later leads nowhere new.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::Reach;
use policy::text::one_line;

/// A name without an address.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} can't be resolved: {reason}; check DNS or /etc/hosts on this node")]
pub(crate) struct NoAddress {
    host: String,
    reason: String,
}

/// A host that is at no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} is at {address}, which is this machine's own, link-local or a metadata service's; name that host in the config if it is meant"
)]
pub(crate) struct ForbiddenAddress {
    pub(crate) host: String,
    pub(crate) address: IpAddr,
}

/// Asks `getaddrinfo`, and leaves out what may not be reached.
pub(crate) struct SystemResolver {
    pub(crate) reach: Reach,
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach.clone();
        Box::pin(async move {
            let host = name.as_str();
            let mut found = look_up(host).await?;
            let first = found.first().map(SocketAddr::ip);
            found.retain(|address| reach.allows(address.ip()));
            if found.is_empty()
                && let Some(address) = first
            {
                let host = host.to_owned();
                return Err(
                    Box::new(ForbiddenAddress { host, address }) as Box<dyn Error + Send + Sync>
                );
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// All addresses of a name, at least one.
pub(crate) async fn look_up(host: &str) -> Result<Vec<SocketAddr>, NoAddress> {
    let fail = |reason: String| NoAddress {
        host: host.to_owned(),
        reason,
    };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0))
        .await
        .map_err(|error| fail(reason(&error.to_string())))?
        .collect();
    if found.is_empty() {
        return Err(fail("it has no address".to_owned()));
    }
    Ok(found)
}

/// `getaddrinfo`'s own words, without the prefix that says nothing.
fn reason(text: &str) -> String {
    let text = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(text);
    one_line(text, 100)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn resolve(host: &str, reach: Reach) -> Result<usize, String> {
        let name: Name = host.parse().unwrap();
        let found = SystemResolver { reach }.resolve(name).await;
        found
            .map(Iterator::count)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn names_of_this_machine_lead_nowhere_where_it_is_out_of_reach() {
        assert!(resolve("localhost", Reach::Anywhere).await.unwrap() > 0);
        let error = resolve("localhost", Reach::Outside(Vec::new())).await;
        let error = error.unwrap_err();
        assert!(error.starts_with("localhost is at "), "{error}");
        let also = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        assert!(resolve("localhost", Reach::Outside(also)).await.unwrap() > 0);
    }
}
