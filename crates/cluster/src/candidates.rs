//! Where a Kubernetes client finds its server and its identity, in the order in which it is looked for.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::Kubeconfig;
use policy::ProxySettings;

use crate::context::{CurrentContext, Unusable};
use crate::kubeconfig;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ADMIN: &str = "/etc/kubernetes/admin.conf";
const K3S: &str = "/etc/rancher/k3s/k3s.yaml";

/// The places to look at, in their order. Plain data, so that a test can have its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeconfigCandidates {
    /// `host:port` of the API server as every Pod is told it.
    pub service: Option<String>,
    /// Directory of a Pod's service account.
    pub service_account: PathBuf,
    /// `$KUBECONFIG`: a list of files that are merged.
    pub kubeconfig: Vec<PathBuf>,
    /// Further kubeconfig files, each tried alone.
    pub files: Vec<PathBuf>,
    /// The way to a kubeconfig's server that has no `proxy-url`. A Pod's service is never asked through a proxy.
    pub proxies: ProxySettings,
}

/// A config that can be used, and what was passed over on the way to it.
#[derive(Debug)]
pub struct Discovered {
    /// What to connect with, and where it was found; `None` when no place has any.
    pub found: Option<(Config, String)>,
    /// One line for each place that is there but can't be used. Without secrets.
    pub warnings: Vec<String>,
}

impl KubeconfigCandidates {
    /// The places that this process's environment names.
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// The places that the variables name: in the cluster, `$KUBECONFIG`, kubeadm's and k3s's files,
    /// and the user's own (`/root` where `HOME` is unset, as it is under systemd).
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            variable(name)
                .and_then(|value| value.into_string().ok())
                .filter(|value| !value.is_empty())
        };
        let service = text("KUBERNETES_SERVICE_HOST")
            .zip(text("KUBERNETES_SERVICE_PORT"))
            .map(|(host, port)| {
                if host.contains(':') && !host.starts_with('[') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            });
        let kubeconfig = variable("KUBECONFIG")
            .map(|list| std::env::split_paths(&list).collect())
            .unwrap_or_default();
        let home = variable("HOME")
            .filter(|home| !home.is_empty())
            .map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        Self {
            service,
            service_account: PathBuf::from(SERVICE_ACCOUNT),
            kubeconfig,
            files: vec![
                PathBuf::from(ADMIN),
                PathBuf::from(K3S),
                home.join(".kube/config"),
            ],
            proxies: ProxySettings::from_lookup(text),
        }
    }

    /// Takes the first place that can be used. Reads files.
    pub async fn discover(&self) -> Discovered {
        let mut warnings = Vec::new();
        if let Some(found) = self.in_cluster(&mut warnings) {
            return Discovered {
                found: Some(found),
                warnings,
            };
        }
        let mut groups = Vec::with_capacity(1 + self.files.len());
        groups.push(self.kubeconfig.as_slice());
        groups.extend(self.files.iter().map(std::slice::from_ref));
        for group in groups {
            if let Some(found) = of_files(group, &self.proxies, &mut warnings).await {
                return Discovered {
                    found: Some(found),
                    warnings,
                };
            }
        }
        Discovered {
            found: None,
            warnings,
        }
    }

    fn in_cluster(&self, warnings: &mut Vec<String>) -> Option<(Config, String)> {
        let service = self.service.as_ref()?;
        let token = self.service_account.join("token");
        if !token.is_file() {
            return None;
        }
        let Ok(url) = format!("https://{service}").parse() else {
            warnings.push(format!(
                "KUBERNETES_SERVICE_HOST and _PORT make no address ({service}); looking elsewhere"
            ));
            return None;
        };
        let mut config = Config::new(url);
        let authority = self.service_account.join("ca.crt");
        // `kube` reads it, again and again, and would wait for a pipe.
        if authority.exists() && !authority.is_file() {
            warnings.push(format!(
                "{} is not a regular file; looking elsewhere",
                authority.display()
            ));
            return None;
        }
        config.root_cert_file = Some(authority);
        config.auth_info.token_file = Some(token.display().to_string());
        Some((config, "the Pod's service account".to_owned()))
    }
}

/// Merges the files that are there; one that can't be read as a kubeconfig is passed over.
async fn of_files(
    files: &[PathBuf],
    proxies: &ProxySettings,
    warnings: &mut Vec<String>,
) -> Option<(Config, String)> {
    let mut merged: Option<Kubeconfig> = None;
    let mut names = Vec::new();
    for file in files.iter().filter(|file| !file.as_os_str().is_empty()) {
        let next = match kubeconfig::read(file).await {
            Ok(next) => next,
            Err(error) if error.is_absent() => continue,
            Err(error) => {
                warnings.push(passed_over(file, &error));
                continue;
            }
        };
        let both = match merged.clone() {
            Some(first) => first.merge(next),
            None => Ok(next),
        };
        match both {
            Ok(kubeconfig) => {
                merged = Some(kubeconfig);
                names.push(file.display().to_string());
            }
            Err(_) => {
                let why = "its `kind` or `apiVersion` is not that of the files before it";
                warnings.push(passed_over(file, &why));
            }
        }
    }
    let name = names.join(", ");
    match config(merged?, proxies).await {
        Ok(config) => Some((config, name)),
        Err(why) => {
            warnings.push(passed_over(Path::new(&name), &why));
            None
        }
    }
}

async fn config(kubeconfig: Kubeconfig, proxies: &ProxySettings) -> Result<Config, Unusable> {
    let mut context = CurrentContext::of(kubeconfig)?;
    context.read_files().await?;
    context.config(proxies)
}

fn passed_over(file: &Path, why: &dyn Display) -> String {
    format!("passing over the kubeconfig {}: {why}", file.display())
}
