//! The TLS part of containerd's `hosts.toml`. Pure: text in, paths out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

/// What the file says about one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) clients: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) skip_verify: Option<bool>,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Table>,
    #[serde(flatten)]
    top: Table,
}

#[derive(Default, Deserialize)]
struct Table {
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<Client>>,
    skip_verify: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    /// First, because a list of two names must not be read as one pair.
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    /// Certificate and key in one file.
    Combined(PathBuf),
    Pair([PathBuf; 2]),
}

impl Table {
    fn says_nothing(&self) -> bool {
        self.ca.is_none() && self.client.is_none() && self.skip_verify.is_none()
    }

    /// Relative paths are relative to the file's directory.
    fn resolved(self, dir: &Path) -> Section {
        Section {
            ca: self
                .ca
                .map(OneOrMany::into_vec)
                .unwrap_or_default()
                .into_iter()
                .map(|path| dir.join(path))
                .collect(),
            clients: self
                .client
                .map(OneOrMany::into_vec)
                .unwrap_or_default()
                .into_iter()
                .map(|client| match client {
                    Client::Combined(path) => (dir.join(path), None),
                    // As containerd's documents have it: the key stands in the certificate's file.
                    Client::Pair([cert, key]) if key.as_os_str().is_empty() => {
                        (dir.join(cert), None)
                    }
                    Client::Pair([cert, key]) => (dir.join(cert), Some(dir.join(key))),
                })
                .collect(),
            skip_verify: self.skip_verify,
        }
    }
}

/// Takes what `hosts.toml` in `dir` says about `domain` itself: its own `[host]` table if one says
/// anything about TLS, else the top level, which is about `server`. What it says about mirrors is not
/// for this host.
///
/// # Errors
/// The TOML error without the lines it quotes.
pub(crate) fn parse(
    text: &str,
    dir: &Path,
    domain: &str,
    also_known_as: &[String],
) -> Result<Section, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let is_it = |address: &str| {
        let address = host_and_port(address);
        std::iter::once(domain)
            .chain(also_known_as.iter().map(String::as_str))
            .any(|name| host_and_port(name) == address)
    };
    let own = file
        .host
        .into_iter()
        .find(|(address, table)| is_it(address) && !table.says_nothing());
    // To containerd an empty one is none.
    let server = file.server.as_deref().filter(|server| !server.is_empty());
    let top_applies = server.is_none_or(is_it);
    Ok(match own {
        Some((_, table)) => table.resolved(dir),
        None if top_applies => file.top.resolved(dir),
        None => Section::default(),
    })
}

/// Host in lower case and port of an address; `https://` is implied, as containerd implies it.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let url = if address.contains("://") {
        Url::parse(address)
    } else {
        Url::parse(&format!("https://{address}"))
    }
    .ok()?;
    Some((
        url.host_str()?.to_ascii_lowercase(),
        url.port_or_known_default()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Section {
        let aliases = ["registry-1.docker.io".to_owned()];
        parse(text, Path::new("/etc/d"), "reg.io:5000", &aliases).unwrap()
    }

    fn ca(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn every_form_of_ca_and_client() {
        assert_eq!(section("ca = 'a.pem'").ca, ca(&["/etc/d/a.pem"]));
        assert_eq!(
            section("ca = ['a.pem', '/b.pem']").ca,
            ca(&["/etc/d/a.pem", "/b.pem"])
        );
        assert_eq!(
            section("client = 'c.pem'").clients,
            [("/etc/d/c.pem".into(), None)]
        );
        assert_eq!(
            section("client = ['c.pem', '/d.pem']").clients,
            [("/etc/d/c.pem".into(), None), ("/d.pem".into(), None)]
        );
        assert_eq!(
            section("client = [['c.pem', 'k.pem']]").clients,
            [("/etc/d/c.pem".into(), Some("/etc/d/k.pem".into()))]
        );
        assert_eq!(
            section("client = [['/c.pem', '/k.pem'], ['/d.pem', '']]").clients,
            [
                ("/c.pem".into(), Some("/k.pem".into())),
                ("/d.pem".into(), None)
            ]
        );
        assert_eq!(section("skip_verify = true").skip_verify, Some(true));
    }

    #[test]
    fn the_hosts_own_table_goes_before_the_top_level() {
        let text = r#"
            server = "https://reg.io:5000"
            ca = "top.pem"
            [host."https://mirror.io"]
              skip_verify = true
            [host."https://REG.io:5000/v2"]
              capabilities = ["pull"]
              ca = "own.pem"
              [host."https://reg.io:5000/v2".header]
                x = ["y"]
        "#;
        assert_eq!(section(text).ca, ca(&["/etc/d/own.pem"]));
        assert_eq!(section(text).skip_verify, None);
        let silent = r#"
            ca = "top.pem"
            [host."https://reg.io:5000"]
              capabilities = ["pull"]
        "#;
        assert_eq!(section(silent).ca, ca(&["/etc/d/top.pem"]));
    }

    #[test]
    fn what_is_about_another_server_is_not_about_this_host() {
        assert_eq!(
            section("server = 'https://other.io'\nskip_verify = true"),
            Section::default()
        );
        assert_eq!(
            section("server = 'https://registry-1.docker.io'\nskip_verify = true").skip_verify,
            Some(true)
        );
        assert_eq!(
            section("server = ''\nskip_verify = true").skip_verify,
            Some(true)
        );
        assert_eq!(
            section("[host.'https://mirror.io']\nskip_verify = true"),
            Section::default()
        );
    }

    #[test]
    fn broken_files_are_errors_that_quote_nothing() {
        for text in [
            "ca = [",
            "ca = 5",
            "client = [['a','b','c']]",
            "skip_verify = 'x'",
        ] {
            let error = parse(text, Path::new("/"), "a", &[]).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
