//! What a kubeconfig's current context says, as `kube` connects with it.
//!
//! `kube` can read that itself. But then it takes the proxy from the environment, too, in a way of its own: it looks
//! for the proxy's name in `NO_PROXY`, not for the server's, and refuses values that everybody else takes.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Config;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use policy::ProxySettings;
use policy::proxies;
use policy::text::host_of;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

use crate::kubeconfig::MAX_FILE;

/// Where a SOCKS proxy listens that is named without a port.
const SOCKS_PORT: u16 = 1080;

/// Why a kubeconfig can't be used. The texts never quote it, but for names and paths: it holds keys and passwords.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Unusable {
    /// It does not say which context is used.
    #[error("it has no current context")]
    NoContext,
    /// The context that it names is not in it.
    #[error("its context `{0}` is not there")]
    Context(String),
    /// The cluster of the context is not in it.
    #[error("its cluster `{0}` is not there")]
    Cluster(String),
    /// The cluster has no address.
    #[error("its cluster has no `server`")]
    NoServer,
    /// The cluster's address is none.
    #[error("its cluster's `server` is no address, such as https://10.0.0.1:6443")]
    Server,
    /// The cluster's certificates can't be used.
    #[error("its certificate authority can't be read: {0}")]
    Authority(&'static str),
    /// What stands in another file can't be read.
    #[error("its {what} {file} can't be read: {why}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// The content stands where its file should be named.
    #[error(
        "its {0} stands where a file's name should be; its field is the one that ends in `-data`"
    )]
    ContentAsFile(&'static str),
    /// The proxy's address is none.
    #[error("its cluster's `proxy-url` is no proxy's address, such as http://proxy.corp:3128")]
    Proxy,
    /// A SOCKS proxy that wants to know who asks.
    #[error(
        "a SOCKS proxy with a user and a password ({0}) can't be used to reach an API server; name an HTTP proxy, or \
         have the API server asked directly by NO_PROXY"
    )]
    SocksPassword(String),
}

/// The current context of a kubeconfig: a server, and who asks it.
pub(crate) struct CurrentContext {
    cluster: Cluster,
    user: AuthInfo,
    namespace: Option<String>,
}

impl CurrentContext {
    /// Takes it out of a kubeconfig.
    ///
    /// # Errors
    /// There is none, or it names what isn't there.
    pub(crate) fn of(kubeconfig: Kubeconfig) -> Result<Self, Unusable> {
        let name = kubeconfig.current_context.filter(|name| !name.is_empty());
        let name = name.ok_or(Unusable::NoContext)?;
        let mut contexts = kubeconfig.contexts.into_iter();
        let context = contexts.find(|named| named.name == name);
        let context = context
            .and_then(|named| named.context)
            .ok_or(Unusable::Context(name))?;
        let mut clusters = kubeconfig.clusters.into_iter();
        let cluster = clusters.find(|named| named.name == context.cluster);
        let cluster = cluster
            .and_then(|named| named.cluster)
            .ok_or(Unusable::Cluster(context.cluster))?;
        let mut users = kubeconfig.auth_infos.into_iter();
        let user = users.find(|named| Some(&named.name) == context.user.as_ref());
        Ok(Self {
            cluster,
            // As kubectl has it: a user that isn't there is nobody.
            user: user.and_then(|named| named.auth_info).unwrap_or_default(),
            namespace: context.namespace,
        })
    }

    /// Puts what stands in files into it: `kube` reads them on the thread that asks, for as long as that takes.
    ///
    /// # Errors
    /// A file can't be read.
    pub(crate) async fn read_files(&mut self) -> Result<(), Unusable> {
        let cluster = &mut self.cluster;
        inlined(
            &mut cluster.certificate_authority,
            &mut cluster.certificate_authority_data,
            "certificate authority",
        )
        .await?;
        let user = &mut self.user;
        inlined(
            &mut user.client_certificate,
            &mut user.client_certificate_data,
            "client certificate",
        )
        .await?;
        let key = user.client_key_data.take();
        let mut key = key.map(|key| key.expose_secret().to_owned());
        inlined(&mut user.client_key, &mut key, "client key").await?;
        user.client_key_data = key.map(SecretString::from);
        Ok(())
    }

    /// What `kube` connects with. Without a `proxy-url`, the way to the server is that of any other request.
    ///
    /// # Errors
    /// A field can't be used.
    pub(crate) fn config(mut self, environment: &ProxySettings) -> Result<Config, Unusable> {
        let cluster = &mut self.cluster;
        let server = cluster.server.clone().ok_or(Unusable::NoServer)?;
        let url = Url::parse(&server).map_err(|_| Unusable::Server)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Unusable::Server);
        }
        let mut config = Config::new(server.parse().map_err(|_| Unusable::Server)?);
        let proxy = match cluster.proxy_url.take().filter(|text| !text.is_empty()) {
            Some(text) => Some(proxies::parse(&text).ok_or(Unusable::Proxy)?),
            None => environment.for_url(&url).cloned(),
        };
        config.proxy_url = proxy.map(as_kube_takes_it).transpose()?;
        if let Some(namespace) = self.namespace {
            config.default_namespace = namespace;
        }
        let authority = cluster.certificate_authority_data.as_deref();
        config.root_cert = authority.map(certificates).transpose()?;
        config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
        config.disable_compression = cluster.disable_compression.unwrap_or_default();
        let server_name = cluster.tls_server_name.clone();
        config.tls_server_name = server_name.filter(|name| !name.is_empty());
        if let Some(exec) = &mut self.user.exec
            && exec.provide_cluster_info
        {
            let told = (&self.cluster).try_into();
            exec.cluster = Some(told.map_err(|_| Unusable::Authority("it is no base64"))?);
        }
        config.auth_info = self.user;
        Ok(config)
    }
}

/// Takes the file's content where there is no data yet. Empty is absent.
async fn inlined(
    file: &mut Option<String>,
    data: &mut Option<String>,
    what: &'static str,
) -> Result<(), Unusable> {
    let file = file.take().filter(|file| !file.is_empty());
    *data = data.take().filter(|data| !data.is_empty());
    let Some(file) = file.filter(|_| data.is_none()) else {
        return Ok(());
    };
    match files::read_bytes(Path::new(&file), MAX_FILE).await {
        Ok(bytes) => *data = Some(STANDARD.encode(bytes)),
        // The path would be the key.
        Err(_) if is_content(&file) => return Err(Unusable::ContentAsFile(what)),
        Err(error) => {
            let why = error.to_string();
            return Err(Unusable::File { what, file, why });
        }
    }
    Ok(())
}

/// Whether it is PEM, as it is or in base64, and no path.
fn is_content(file: &str) -> bool {
    // Of five dashes.
    file.contains("LS0tLS1") || file.contains("-----BEGIN")
}

/// The certificates of base64 of PEM.
fn certificates(data: &str) -> Result<Vec<Vec<u8>>, Unusable> {
    let pem = STANDARD.decode(data);
    let pem = pem.map_err(|_| Unusable::Authority("it is no base64"))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(Unusable::Authority("it has no certificate")),
        Ok(all) => Ok(all.iter().map(|one| one.to_vec()).collect()),
        Err(_) => Err(Unusable::Authority("it is no PEM")),
    }
}

/// A proxy's address in the spelling that `kube` knows.
fn as_kube_takes_it(mut proxy: Url) -> Result<http::Uri, Unusable> {
    if matches!(proxy.scheme(), "socks5" | "socks5h") {
        if !proxy.username().is_empty() || proxy.password().is_some() {
            return Err(Unusable::SocksPassword(host_of(&proxy)));
        }
        let port = proxy.port().unwrap_or(SOCKS_PORT);
        // To both, as in Go, names are given as they are.
        let renamed = proxy.set_scheme("socks5");
        renamed
            .and_then(|()| proxy.set_port(Some(port)))
            .map_err(|()| Unusable::Proxy)?;
    }
    proxy.as_str().parse().map_err(|_| Unusable::Proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its current context, of the fields of its cluster.
    fn context(cluster: serde_json::Value) -> CurrentContext {
        let kubeconfig = serde_json::json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}],
        });
        CurrentContext::of(serde_json::from_value(kubeconfig).unwrap()).unwrap()
    }

    fn environment(pairs: &[(&str, &str)]) -> ProxySettings {
        ProxySettings::from_lookup(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_way_to_the_server() {
        let of = |server: &str, proxy_url: Option<&str>, pairs: &[(&str, &str)]| {
            let cluster = serde_json::json!({"server": server, "proxy-url": proxy_url});
            let config = context(cluster).config(&environment(pairs)).unwrap();
            config.proxy_url.map(|proxy| proxy.to_string())
        };
        const SERVER: &str = "https://10.0.0.1:6443";
        let proxy = ("HTTPS_PROXY", "http://proxy.corp:3128");
        let through = Some("http://proxy.corp:3128/".to_owned());
        assert_eq!(of(SERVER, None, &[]), None);
        assert_eq!(of(SERVER, None, &[proxy]), through);
        // The exceptions are servers, not proxies.
        for exceptions in ["10.0.0.0/8", "10.0.0.1,", "*", "10.0.0.1:6443"] {
            let no_proxy = ("NO_PROXY", exceptions);
            assert_eq!(of(SERVER, None, &[proxy, no_proxy]), None, "{exceptions}");
        }
        for exceptions in ["proxy.corp", "10.0.0.2, ,", ",", "!"] {
            let no_proxy = ("NO_PROXY", exceptions);
            let way = of(SERVER, None, &[proxy, no_proxy]);
            assert_eq!(way, through, "{exceptions}");
        }
        // k3s on its own node, and a server without TLS.
        assert_eq!(of("https://127.0.0.1:6443", None, &[proxy]), None);
        assert_eq!(of("http://10.0.0.1:8080", None, &[proxy]), None);
        // A kubeconfig knows its own server best.
        let own = Some("http://own.corp:3128");
        let way = of("https://127.0.0.1:6443", own, &[proxy, ("NO_PROXY", "*")]);
        assert_eq!(way.as_deref(), Some("http://own.corp:3128/"));
        assert_eq!(of(SERVER, Some(""), &[proxy]), through);
        for (written, way) in [
            ("proxy.corp:3128", "http://proxy.corp:3128/"),
            ("u:p%40@proxy.corp:3128", "http://u:p%40@proxy.corp:3128/"),
            ("https://proxy.corp", "https://proxy.corp/"),
            ("socks5://proxy.corp", "socks5://proxy.corp:1080/"),
            ("socks5h://[fd00::1]:99", "socks5://[fd00::1]:99/"),
        ] {
            let found = of(SERVER, None, &[("HTTPS_PROXY", written)]);
            assert_eq!(found.as_deref(), Some(way), "{written}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_named_without_secrets() {
        let socks = "socks5://hugo:hunter2@proxy.corp:1080";
        let no_certificate = STANDARD.encode("hunter2");
        let broken =
            STANDARD.encode("-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----");
        const SERVER: &str = "https://10.0.0.1:6443";
        for (cluster, said) in [
            (serde_json::json!({}), "has no `server`"),
            (
                serde_json::json!({"server": "10.0.0.1:6443"}),
                "is no address",
            ),
            (
                serde_json::json!({"server": "hunter2:6443"}),
                "is no address",
            ),
            (
                serde_json::json!({"server": SERVER, "proxy-url": "ftp://u:hunter2@proxy.corp"}),
                "`proxy-url` is no proxy's address",
            ),
            (
                serde_json::json!({"server": SERVER, "proxy-url": socks}),
                "(socks5://proxy.corp:1080)",
            ),
            (
                serde_json::json!({"server": SERVER, "certificate-authority-data": "hunter2!"}),
                "can't be read: it is no base64",
            ),
            (
                serde_json::json!({"server": SERVER, "certificate-authority-data": no_certificate}),
                "can't be read: it has no certificate",
            ),
            (
                serde_json::json!({"server": SERVER, "certificate-authority-data": broken}),
                "can't be read: it is no PEM",
            ),
        ] {
            let made = context(cluster).config(&ProxySettings::none());
            let error = made.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_plugin_that_wants_to_know_the_cluster_is_told() {
        let kubeconfig = serde_json::json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
            "clusters": [{"name": "k", "cluster": {
                "server": "https://10.0.0.1", "tls-server-name": "kubernetes", "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "u", "user": {"exec": {"command": "login", "provideClusterInfo": true}}}],
        });
        let context = CurrentContext::of(serde_json::from_value(kubeconfig).unwrap()).unwrap();
        let config = context.config(&ProxySettings::none()).unwrap();
        let told = config.auth_info.exec.unwrap().cluster.unwrap();
        assert_eq!(told.server.as_deref(), Some("https://10.0.0.1"));
        assert_eq!(config.default_namespace, "n");
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert!(config.accept_invalid_certs);
        assert_eq!(config.root_cert, None);
    }

    #[tokio::test]
    async fn files_are_read_within_bounds_and_of_the_context_in_use_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::fs::write(dir.path().join("good"), "PEM").unwrap();
        let text = |cluster: &str, user: &str| {
            format!(
                "current-context: c\ncontexts: [{{name: c, context: {{cluster: one, user: one}}}}]\n\
                 clusters: [{{name: one, cluster: {{{cluster}}}}}, {{name: other, cluster: {{certificate-authority: pipe}}}}]\n\
                 users: [{{name: one, user: {{{user}}}}}, {{name: other, user: {{client-key: pipe}}}}]\n"
            )
        };
        let file = dir.path().join("kubeconfig");
        let read_all = async |cluster: &str, user: &str| {
            std::fs::write(&file, text(cluster, user)).unwrap();
            let kubeconfig = crate::kubeconfig::read(&file).await.unwrap();
            let mut context = CurrentContext::of(kubeconfig).unwrap();
            context.read_files().await.map(|()| context)
        };
        let all = "client-certificate: good, client-key: good";
        // Empty is absent.
        let cluster = "certificate-authority: good, certificate-authority-data: ''";
        let context = read_all(cluster, all).await.unwrap();
        let key = context.user.client_key_data.as_ref();
        for found in [
            context.cluster.certificate_authority_data.as_deref(),
            context.user.client_certificate_data.as_deref(),
            key.map(ExposeSecret::expose_secret),
        ] {
            assert_eq!(found, Some("UEVN"));
        }
        for (cluster, user) in [
            ("certificate-authority: pipe", all),
            ("", "client-certificate: pipe"),
            ("", "client-key: pipe"),
        ] {
            let Err(error) = read_all(cluster, user).await else {
                panic!("read a pipe: {cluster} {user}");
            };
            let error = error.to_string();
            assert!(error.contains("it is not a regular file"), "{error}");
        }
        let pem = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";
        for content in [STANDARD.encode(pem), pem.replace('\n', "\\n")] {
            let Err(error) = read_all("", &format!("client-key: \"{content}\"")).await else {
                panic!("read a key: {content}");
            };
            assert_eq!(error, Unusable::ContentAsFile("client key"));
        }
        // What stands in it goes before what it points to.
        let data = "certificate-authority: pipe, certificate-authority-data: UEVN";
        read_all(data, "").await.unwrap();
        // Nor is the file itself waited for.
        let error = crate::kubeconfig::read(&pipe).await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
