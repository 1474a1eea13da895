//! What a runtime has to be told to use the cache as its mirror.

use policy::Endpoint;
use policy::endpoint::EndpointError;
use thiserror::Error;

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `hosts.toml` below `/etc/containerd/certs.d`.
    Containerd,
    /// `registries.conf`.
    CriO,
}

/// Why there is no text for the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MirrorConfigError {
    /// Of a registry that is to be mirrored.
    #[error("cannot make the runtime's config for the registry `{0}`: {1}")]
    Registry(String, Problem),
    /// Of the cache.
    #[error("cannot make the runtime's config for a cache at `{0}`: {1}")]
    Cache(String, Problem),
}

/// What is wrong with a written host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The texts have a scheme of their own: a registry's is the runtime's to say, the cache's is HTTP.
    #[error("a scheme has no place here; write `host` or `host:port`")]
    Scheme,
    /// A user or a password.
    #[error("credentials have no place here; write `host` or `host:port`")]
    Credentials,
    /// A path.
    #[error("a path has no place here; write `host` or `host:port`")]
    Path,
    /// The cache has each host's images below the host's own name.
    #[error("the cache mirrors no wildcards; write each host, such as `quay.io`")]
    Wildcard,
    /// CRI-O reads a mirror's location as the beginning of an image's name, in which no path has brackets.
    #[error("CRI-O has no mirrors of IPv6 addresses; give the registry a name, and write that")]
    Brackets,
    /// The cache is on no scheme's own port.
    #[error("the port is missing; write it too, such as `localhost:7439`")]
    NoPort,
    /// What every address may be wrong in.
    #[error(transparent)]
    Address(#[from] EndpointError),
}

/// The text for a runtime; `cache` is `host:port`, `hosts` are the registries that it is to mirror
/// (`docker.io` where none is given).
///
/// # Errors
/// One of them is no such thing, or can't be written in that runtime's file.
pub fn render(
    runtime: Runtime,
    cache: &str,
    hosts: &[String],
) -> Result<String, MirrorConfigError> {
    let address = cache_address(cache)
        .map_err(|problem| MirrorConfigError::Cache(without_password(cache), problem))?;
    let hosts: Vec<String> = hosts
        .iter()
        .map(|host| {
            registry(runtime, host)
                .map_err(|problem| MirrorConfigError::Registry(without_password(host), problem))
        })
        .collect::<Result<_, _>>()?;
    Ok(match runtime {
        Runtime::Containerd => containerd(&address),
        Runtime::CriO => crio(&address, &hosts),
    })
}

fn cache_address(text: &str) -> Result<String, Problem> {
    let endpoint = host_and_port(text)?;
    match endpoint.port() {
        Some(port) => Ok(format!("{}:{port}", endpoint.host())),
        None => Err(Problem::NoPort),
    }
}

/// The host as it stands at the start of images' names.
fn registry(runtime: Runtime, text: &str) -> Result<String, Problem> {
    let domain = host_and_port(text)?.domain();
    if runtime == Runtime::CriO && domain.contains('[') {
        return Err(Problem::Brackets);
    }
    Ok(domain)
}

fn host_and_port(text: &str) -> Result<Endpoint, Problem> {
    if text.contains("://") {
        return Err(Problem::Scheme);
    }
    if text.contains('@') {
        return Err(Problem::Credentials);
    }
    if text.contains('*') {
        return Err(Problem::Wildcard);
    }
    if text.contains('/') {
        return Err(Problem::Path);
    }
    Ok(Endpoint::parse(text)?.0)
}

/// What stands before an `@` may be a password.
fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("***@{rest}"),
        None => text.to_owned(),
    }
}

fn containerd(cache: &str) -> String {
    format!(
        r#"# /etc/containerd/certs.d/_default/hosts.toml
# For every registry that has no directory of its own in certs.d; needs
# `config_path = "/etc/containerd/certs.d"` in containerd's config (the default from 2.2 on).
# Without dial_timeout containerd waits 30 seconds per layer for a cache that is gone.
[host."http://{cache}"]
  capabilities = ["pull", "resolve"]
  dial_timeout = "1s"
"#
    )
}

fn crio(cache: &str, hosts: &[String]) -> String {
    let docker = ["docker.io".to_owned()];
    let hosts = if hosts.is_empty() { &docker[..] } else { hosts };
    let mut text = String::from(
        "# /etc/containers/registries.conf.d/50-image-cri-shim-cache.conf\n\
         # A table of a drop-in replaces the whole table with the same prefix of a file that is read before.\n\
         # Copy what that one says (insecure, blocked, other mirrors) into the table here.\n",
    );
    for host in hosts {
        let segment = host.replacen(':', "_", 1);
        text.push_str(&format!(
            r#"[[registry]]
prefix = "{host}"
location = "{host}"

  [[registry.mirror]]
  location = "{cache}/{segment}"
  insecure = true

"#
        ));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(runtime: Runtime, cache: &str, hosts: &[&str]) -> Result<String, MirrorConfigError> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        render(runtime, cache, &hosts)
    }

    #[test]
    fn texts() {
        let text = made(Runtime::Containerd, "localhost:7439", &[]).unwrap();
        assert!(text.contains("[host.\"http://localhost:7439\"]"), "{text}");
        assert!(text.contains("dial_timeout = \"1s\""), "{text}");
        let hosts = ["quay.io", "Reg.corp:5000"];
        let text = made(Runtime::CriO, "localhost:7439", &hosts).unwrap();
        assert!(
            text.contains("location = \"localhost:7439/reg.corp_5000\""),
            "{text}"
        );
        assert_eq!(text.matches("[[registry]]").count(), 2);
        assert!(text.contains("replaces the whole table"), "{text}");
        assert!(text.ends_with("insecure = true\n"));
        let text = made(Runtime::CriO, "c:7439", &[]).unwrap();
        assert!(text.contains("prefix = \"docker.io\""), "{text}");
        let text = made(Runtime::Containerd, "[::1]:7439", &["[::1]:5000"]).unwrap();
        assert!(text.contains("[host.\"http://[::1]:7439\"]"), "{text}");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (host, problem) in [
            ("http://quay.io", Problem::Scheme),
            ("https://u:hunter2@quay.io", Problem::Scheme),
            ("u:hunter2@quay.io", Problem::Credentials),
            ("*.corp", Problem::Wildcard),
            ("quay.io/team", Problem::Path),
            ("quay.io/", Problem::Path),
            ("[::1]:5000", Problem::Brackets),
            ("quay.io\"", EndpointError::Host.into()),
            ("quay.io\n[[registry]]", EndpointError::Host.into()),
            ("quay io", EndpointError::Host.into()),
            ("quay.io:http", EndpointError::Port.into()),
            ("", EndpointError::Empty.into()),
        ] {
            let error = made(Runtime::CriO, "localhost:7439", &[host]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("for the registry `"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
            let shown = without_password(host);
            assert_eq!(error, MirrorConfigError::Registry(shown, problem));
        }
        for (cache, problem) in [
            ("http://localhost:7439", Problem::Scheme),
            ("localhost:7439/x", Problem::Path),
            ("localhost", Problem::NoPort),
            ("local\"host:7439", EndpointError::Host.into()),
        ] {
            for runtime in [Runtime::Containerd, Runtime::CriO] {
                let error = made(runtime, cache, &[]).unwrap_err();
                let want = MirrorConfigError::Cache(cache.to_owned(), problem.clone());
                assert_eq!(error, want);
            }
        }
    }
}
