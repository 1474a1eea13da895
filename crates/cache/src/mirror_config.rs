//! What a runtime has to be told to use the cache as its mirror.

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `hosts.toml` below `/etc/containerd/certs.d`.
    Containerd,
    /// `registries.conf`.
    CriO,
}

/// The text for a runtime; `cache` is `host:port`, `hosts` are the registries that it is to mirror
/// (`docker.io` where none is given).
pub fn render(runtime: Runtime, cache: &str, hosts: &[String]) -> String {
    match runtime {
        Runtime::Containerd => containerd(cache),
        Runtime::CriO => crio(cache, hosts),
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
    let mut text =
        String::from("# /etc/containers/registries.conf.d/50-image-cri-shim-cache.conf\n");
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

    #[test]
    fn texts() {
        let text = render(Runtime::Containerd, "localhost:7439", &[]);
        assert!(text.contains("[host.\"http://localhost:7439\"]"), "{text}");
        assert!(text.contains("dial_timeout = \"1s\""), "{text}");
        let hosts = ["quay.io".to_owned(), "reg.corp:5000".to_owned()];
        let text = render(Runtime::CriO, "localhost:7439", &hosts);
        assert!(
            text.contains("location = \"localhost:7439/reg.corp_5000\""),
            "{text}"
        );
        assert_eq!(text.matches("[[registry]]").count(), 2);
        assert!(text.ends_with("insecure = true\n"));
        assert!(render(Runtime::CriO, "c", &[]).contains("\"docker.io\""));
    }
}
