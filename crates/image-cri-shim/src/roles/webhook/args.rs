//! The command line of `webhook`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::options::{ServiceArgs, duration};

/// What `webhook` is told on the command line.
#[derive(Debug, Args)]
pub(crate) struct WebhookArgs {
    #[command(flatten)]
    pub(crate) service_args: ServiceArgs,

    /// Take the rules from the ConfigMap kube-system/image-cri-shim, not from the config file
    #[arg(long)]
    pub(super) config_map: bool,

    /// Where API servers are answered, with TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    pub(super) listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are answered, without TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8081")]
    pub(super) health_listen: SocketAddr,

    /// The certificate chain, in PEM; followed when it changes
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim/tls/tls.crt",
        conflicts_with = "self_signed"
    )]
    pub(super) tls_cert: PathBuf,

    /// Its private key, in PEM
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/image-cri-shim/tls/tls.key",
        conflicts_with = "self_signed"
    )]
    pub(super) tls_key: PathBuf,

    /// Make a CA and a certificate, share them with the other replicas through a Secret, and tell the API
    /// server to trust them
    #[arg(long)]
    pub(super) self_signed: bool,

    /// The CA, in PEM, of the certificates by which API servers show who they are; followed when it changes.
    /// With `rewrite: best`, registries are then asked for no other caller
    #[arg(long, value_name = "FILE")]
    pub(super) client_ca: Option<PathBuf>,

    /// The common name that an API server's certificate may have; may be repeated. Without it, any
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    pub(super) client_name: Vec<String>,

    /// The webhook's own namespace; else $POD_NAMESPACE, else the service account's
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,

    /// The Service that the API server calls
    #[arg(long, value_name = "NAME", default_value = "image-cri-shim-webhook")]
    pub(super) service: String,

    /// The Secret for --self-signed
    #[arg(
        long,
        value_name = "NAME",
        default_value = "image-cri-shim-webhook-tls"
    )]
    pub(super) secret: String,

    /// The MutatingWebhookConfiguration whose caBundle --self-signed keeps in step
    #[arg(long, value_name = "NAME", default_value = "image-cri-shim")]
    pub(super) registration: String,

    /// How long reviews are still accepted after SIGTERM, until every API server knows that we go
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(super) shutdown_delay: Duration,
}
