//! `nodeCache` as it was written.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::S3Credentials;
use crate::Credentials;
use crate::config::diagnostic::Diagnostic;
use crate::config::fields::{Fields, Located};
use crate::config::reader::Reader;
use crate::yaml::{Node, Value};

/// The section, every field as it was written.
#[derive(Clone, Debug, Default)]
pub struct RawNodeCache {
    /// Addresses to listen on.
    pub listen: Option<Located<Vec<Located<String>>>>,
    /// Names by which clients may ask.
    pub names: Option<Located<Vec<Located<String>>>>,
    /// Networks that may ask.
    pub allow: Option<Located<Vec<Located<String>>>>,
    /// Certificate and key.
    pub tls: Option<Located<RawCacheTls>>,
    /// Directory of the store.
    pub dir: Option<Located<String>>,
    /// Size of the store.
    pub max_size: Option<Located<String>>,
    /// What stays free.
    pub min_free: Option<Located<String>>,
    /// How long a tag is served unasked.
    pub tag_ttl: Option<Located<Duration>>,
    /// How long a tag is served unconfirmed.
    pub max_stale: Option<Located<Duration>>,
    /// How long what is refused is served.
    pub auth_stale: Option<Located<Duration>>,
    /// Whether deleted tags are served.
    pub serve_deleted: Option<Located<bool>>,
    /// How long a proof is remembered.
    pub auth_ttl: Option<Located<Duration>>,
    /// Connections for one blob.
    pub parallel: Option<Located<i64>>,
    /// Size from which there are several.
    pub parallel_above: Option<Located<String>>,
    /// `store.s3`.
    pub s3: Option<Located<RawS3Store>>,
    /// Where metrics are served.
    pub metrics_address: Option<Located<String>>,
}

/// `nodeCache.tls`.
#[derive(Clone, Debug, Default)]
pub struct RawCacheTls {
    /// PEM file with the certificate.
    pub cert_file: Option<Located<String>>,
    /// PEM file with the key.
    pub key_file: Option<Located<String>>,
    /// PEM file with the CAs of clients.
    pub client_ca: Option<Located<String>>,
}

/// `nodeCache.store.s3`.
#[derive(Clone, Debug, Default)]
pub struct RawS3Store {
    /// Bucket.
    pub bucket: Option<Located<String>>,
    /// URL of the server.
    pub endpoint: Option<Located<String>>,
    /// Region.
    pub region: Option<Located<String>>,
    /// Start of every key.
    pub prefix: Option<Located<String>>,
    /// Whether the bucket stands in the path.
    pub path_style: Option<Located<bool>>,
    /// PEM file with the CAs of the server.
    pub ca_file: Option<Located<String>>,
    /// How long what nobody uses is kept.
    pub unused_for: Option<Located<Duration>>,
    /// Access key.
    pub credentials: Option<Located<RawS3Credentials>>,
}

/// `nodeCache.store.s3.credentials`, `${NAME}` unexpanded. Masked in debug output.
#[derive(Clone)]
pub struct RawS3Credentials {
    /// The key's ID.
    pub access_key_id: SecretString,
    /// The key's secret.
    pub secret_access_key: SecretString,
    /// Session token of a temporary key; empty is none.
    pub session_token: SecretString,
}

impl fmt::Debug for RawS3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawS3Credentials(***)")
    }
}

impl RawNodeCache {
    /// Whether nothing is written in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.listen.is_none()
            && self.names.is_none()
            && self.allow.is_none()
            && self.tls.is_none()
            && self.dir.is_none()
            && self.max_size.is_none()
            && self.min_free.is_none()
            && self.tag_ttl.is_none()
            && self.max_stale.is_none()
            && self.auth_stale.is_none()
            && self.serve_deleted.is_none()
            && self.auth_ttl.is_none()
            && self.parallel.is_none()
            && self.parallel_above.is_none()
            && self.s3.is_none()
            && self.metrics_address.is_none()
    }

    /// Takes over every field that `from` sets.
    pub(crate) fn take(&mut self, from: &Self) {
        fn set<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                into.clone_from(from);
            }
        }
        set(&mut self.listen, &from.listen);
        set(&mut self.names, &from.names);
        set(&mut self.allow, &from.allow);
        set(&mut self.tls, &from.tls);
        set(&mut self.dir, &from.dir);
        set(&mut self.max_size, &from.max_size);
        set(&mut self.min_free, &from.min_free);
        set(&mut self.tag_ttl, &from.tag_ttl);
        set(&mut self.max_stale, &from.max_stale);
        set(&mut self.auth_stale, &from.auth_stale);
        set(&mut self.serve_deleted, &from.serve_deleted);
        set(&mut self.auth_ttl, &from.auth_ttl);
        set(&mut self.parallel, &from.parallel);
        set(&mut self.parallel_above, &from.parallel_above);
        set(&mut self.s3, &from.s3);
        set(&mut self.metrics_address, &from.metrics_address);
    }

    /// Takes the field out that a finding names. `position` is the one entry of a list that is wrong.
    pub(crate) fn leave_out(&mut self, finding: &Diagnostic) {
        let without = |list: &mut Option<Located<Vec<Located<String>>>>| {
            if let Some(list) = list {
                list.value
                    .retain(|entry| Some(entry.position) != finding.position);
            }
        };
        match finding.field.as_str() {
            "nodeCache.listen" => without(&mut self.listen),
            "nodeCache.names" => without(&mut self.names),
            // What is left of a list that says who may ask must not be nothing: that is everybody.
            "nodeCache.allow" => without(&mut self.allow),
            "nodeCache.tls" => self.tls = None,
            "nodeCache.dir" => self.dir = None,
            "nodeCache.maxSize" => self.max_size = None,
            "nodeCache.minFree" => self.min_free = None,
            "nodeCache.parallelAbove" => self.parallel_above = None,
            "nodeCache.metricsAddress" => self.metrics_address = None,
            field if field.starts_with("nodeCache.store") => self.s3 = None,
            _ => {}
        }
    }

    pub(crate) fn read(node: Option<Node>, findings: &mut Vec<Diagnostic>) -> Self {
        let Some(node) = node else {
            return Self::default();
        };
        let mut fields = Fields::open(node, "nodeCache", findings);
        let tls = fields.node("tls");
        let store = fields.node("store");
        let mut cache = Self {
            listen: fields.texts("listen"),
            names: fields.texts("names"),
            allow: fields.texts("allow"),
            dir: fields.text("dir"),
            max_size: fields.text("maxSize"),
            min_free: fields.text("minFree"),
            tag_ttl: fields.duration("tagTTL"),
            max_stale: fields.duration("maxStale"),
            auth_stale: fields.duration("authStale"),
            serve_deleted: fields.boolean("serveDeleted"),
            auth_ttl: fields.duration("authTTL"),
            parallel: fields.integer("parallel"),
            parallel_above: fields.text("parallelAbove"),
            metrics_address: fields.text("metricsAddress"),
            tls: None,
            s3: None,
        };
        fields.finish();
        if let Some(node) = tls {
            let position = node.position;
            let mut fields = Fields::open(node, "nodeCache.tls", findings);
            let value = RawCacheTls {
                cert_file: fields.text("certFile"),
                key_file: fields.text("keyFile"),
                client_ca: fields.text("clientCA"),
            };
            fields.finish();
            cache.tls = Some(Located { value, position });
        }
        if let Some(node) = store {
            let mut fields = Fields::open(node, "nodeCache.store", findings);
            let s3 = fields.node("s3");
            fields.finish();
            cache.s3 = s3.map(|node| s3_store(node, findings));
        }
        cache
    }
}

fn s3_store(node: Node, findings: &mut Vec<Diagnostic>) -> Located<RawS3Store> {
    let position = node.position;
    let mut fields = Fields::open(node, "nodeCache.store.s3", findings);
    let credentials = fields.node("credentials");
    let mut value = RawS3Store {
        bucket: fields.text("bucket"),
        endpoint: fields.text("endpoint"),
        region: fields.text("region"),
        prefix: fields.text("prefix"),
        path_style: fields.boolean("pathStyle"),
        ca_file: fields.text("caFile"),
        unused_for: fields.duration("unusedFor"),
        credentials: None,
    };
    fields.finish();
    if let Some(node) = credentials {
        let position = node.position;
        let is_mapping = matches!(node.value, Value::Mapping(_));
        let mut fields = Fields::open(node, "nodeCache.store.s3.credentials", findings);
        let mut part = |name| {
            let text = fields.text(name);
            SecretString::from(text.map(|text| text.value).unwrap_or_default())
        };
        let keys = RawS3Credentials {
            access_key_id: part("accessKeyId"),
            secret_access_key: part("secretAccessKey"),
            session_token: part("sessionToken"),
        };
        fields.finish();
        if is_mapping && !keys.is_empty() {
            value.credentials = Some(Located {
                value: keys,
                position,
            });
        }
    }
    Located { value, position }
}

impl RawS3Credentials {
    /// Its three parts, for the file and for expanding them.
    pub(crate) fn parts(&self) -> [(&'static str, &str); 3] {
        [
            ("accessKeyId", self.access_key_id.expose_secret()),
            ("secretAccessKey", self.secret_access_key.expose_secret()),
            ("sessionToken", self.session_token.expose_secret()),
        ]
    }

    fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, text)| text.is_empty())
    }
}

impl Reader<'_> {
    pub(super) fn s3_credentials(
        &mut self,
        raw: &Located<RawS3Credentials>,
    ) -> Option<S3Credentials> {
        const FIELD: &str = "nodeCache.store.s3.credentials";
        let mut expanded = Vec::with_capacity(3);
        for (_, text) in raw.value.parts() {
            match self.expand(text) {
                Ok(text) => expanded.push(text),
                Err(name) => {
                    let message = format!(
                        "`${{{name}}}` is not set in the environment; the bucket is asked without these credentials"
                    );
                    self.findings
                        .push(Diagnostic::warning(raw.position, FIELD, message));
                    return None;
                }
            }
        }
        let [id, secret, token] = <[String; 3]>::try_from(expanded).ok()?;
        if id.is_empty() || secret.is_empty() {
            let message = "needs `accessKeyId` and `secretAccessKey`";
            self.findings
                .push(Diagnostic::error(raw.position, FIELD, message));
            return None;
        }
        Some(S3Credentials {
            key: Credentials::new(id, secret),
            session_token: (!token.is_empty()).then(|| Credentials::new("", token)),
        })
    }
}
