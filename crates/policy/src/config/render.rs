//! Writes a config as YAML: the local file after a merge, and what `config show` prints.
//!
//! A file is somebody's: only the fields that changed are written anew, in their places; comments,
//! order and fields we don't know stay. Where that can't be done safely (a config on one line, an
//! anchor in a replaced field) the whole is written in our own order.

use secrecy::ExposeSecret;

use super::fields::Located;
use super::key::Key;
use super::meaning;
use super::node_cache::{RawNodeCache, RawS3Credentials};
use super::raw::{RawAuth, RawCache, RawConfig, RawNodeCacheUse, RawRedirect, RawRegistry};
use super::settings::Settings;
use crate::duration;
use crate::endpoint::without_credentials;
use crate::yaml::{self, Node, Value};

/// The longest text of a config file. More than any real one; a mistaken path (a device, an image) is
/// refused instead of read.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// `text` with the fields `changed` as `merged` has them. The result was read again: it means what
/// `merged` means, and can be used after a restart.
///
/// # Errors
/// There is no such text, for example because it would hold more values than a config may. The reason
/// is for people.
pub fn rewrite(text: &str, merged: &RawConfig, changed: &[Key]) -> Result<String, String> {
    if let Some(edited) = edit(text, merged, changed)
        && check(&edited, merged).is_ok()
    {
        return Ok(edited);
    }
    let rendered = render(merged);
    check(&rendered, merged)?;
    Ok(rendered)
}

/// `text` with only the changed fields written anew; `None` where they don't stand apart.
fn edit(text: &str, merged: &RawConfig, changed: &[Key]) -> Option<String> {
    let mut edited = text.to_owned();
    for key in changed {
        edited = replace(&edited, *key, merged)?;
    }
    Some(edited)
}

/// Reads `text` as the next start would.
fn check(text: &str, merged: &RawConfig) -> Result<(), String> {
    if text.len() > MAX_FILE_BYTES {
        return Err(format!(
            "what the file and the ConfigMap say together would be a file of {} bytes; {MAX_FILE_BYTES} are allowed",
            text.len()
        ));
    }
    let (read, mut findings) = RawConfig::read(text);
    let (_, meant) = Settings::from_raw(&read, &|name| Some(format!("${{{name}}}")));
    findings.extend(meant);
    if let Some(error) = findings.into_iter().find(super::Diagnostic::is_error) {
        return Err(format!(
            "what the file and the ConfigMap say together can't be written as a config: {}: {}",
            error.field, error.message
        ));
    }
    let differs = Key::ALL
        .iter()
        .find(|key| meaning::differs(**key, &read, merged));
    match differs {
        Some(key) => Err(format!(
            "`{}` can't be written so that it is read back as it is meant",
            key.name()
        )),
        None => Ok(()),
    }
}

/// The whole config in canonical form: every field that is set, in the order of the documentation.
pub fn render(config: &RawConfig) -> String {
    Writer { masked: false }.config(config)
}

/// One field as it would stand in the file, credentials masked; for people.
pub fn masked(config: &RawConfig, key: Key) -> String {
    Writer { masked: true }.key(config, key)
}

/// Puts the block of `key` in place of the old one, or at the end.
fn replace(text: &str, key: Key, merged: &RawConfig) -> Option<String> {
    let block = Writer { masked: false }.key(merged, key);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let places = places(text, lines.len())?;
    let found = places
        .iter()
        .find(|place| place.name.eq_ignore_ascii_case(key.name()));
    let (start, end) = match found {
        Some(place) => (place.start, place.end),
        None => {
            let end = places.last().map_or(lines.len(), |place| place.end);
            (end, end)
        }
    };
    let mut out: String = lines.get(..start)?.concat();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(&block);
    let kept = lines.get(start..end)?;
    // Blank lines and comments in front of the next field are that field's.
    let trailing = kept
        .iter()
        .rev()
        .take_while(|line| line.trim().is_empty() || line.starts_with('#'))
        .count();
    out.push_str(&kept.get(kept.len() - trailing..)?.concat());
    out.push_str(&lines.get(end..)?.concat());
    Some(out)
}

/// Lines of one top-level field, from 0, the end not included.
struct Place {
    name: String,
    start: usize,
    end: usize,
}

/// Where each top-level field stands; `None` where they don't have lines of their own.
fn places(text: &str, lines: usize) -> Option<Vec<Place>> {
    let Node { value, .. } = yaml::parse(text).ok()?;
    let entries = match value {
        Value::Mapping(entries) => entries,
        Value::Null => return Some(Vec::new()),
        _ => return None,
    };
    let mut places: Vec<Place> = Vec::with_capacity(entries.len());
    for (key, _) in entries {
        if key.position.column != 1 {
            return None;
        }
        let start = key.position.line.checked_sub(1)?;
        places.push(Place {
            name: key.name,
            start,
            end: lines,
        });
    }
    places.sort_by_key(|place| place.start);
    let starts: Vec<usize> = places.iter().skip(1).map(|place| place.start).collect();
    for (place, next) in places.iter_mut().zip(starts) {
        place.end = next;
    }
    let distinct = places.windows(2).all(|w| match w {
        [a, b] => a.start < b.start,
        _ => true,
    });
    let separate = places.iter().all(|place| {
        let block = text.lines().take(place.end).skip(place.start);
        // A document's end or a second document is not part of a field.
        !block
            .clone()
            .any(|line| matches!(line.get(..3), Some("---" | "...")))
    });
    (distinct && separate).then_some(places)
}

struct Writer {
    masked: bool,
}

impl Writer {
    fn config(&self, config: &RawConfig) -> String {
        let mut out = String::new();
        let text = |out: &mut String, name: &str, value: &Option<Located<String>>| {
            if let Some(value) = value {
                field(out, 0, name, &scalar(value.value.trim()));
            }
        };
        text(&mut out, "shim", &config.shim);
        text(&mut out, "cri", &config.cri);
        for key in Key::ALL {
            if key.is_set(config) {
                out.push_str(&self.key(config, key));
            }
        }
        if let Some(env) = &config.config_map_env {
            field(&mut out, 0, "configMapEnv", &env.value.to_string());
        }
        time(&mut out, 0, "probeTimeout", &config.probe_timeout);
        plain(&mut out, 0, "fallbackToOrigin", &config.fallback_to_origin);
        plain(&mut out, 0, "bypass", &config.bypass);
        plain(&mut out, 0, "strict", &config.strict);
        plain(&mut out, 0, "originalNames", &config.original_names);
        plain(&mut out, 0, "keepMirrorNames", &config.keep_mirror_names);
        text(&mut out, "metricsAddress", &config.metrics_address);
        text(&mut out, "image", &config.image);
        text(&mut out, "rewrite", &config.rewrite);
        if let Some(names) = &config.exclude_namespaces {
            field(&mut out, 0, "excludeNamespaces", &flow(&names.value));
        }
        text(
            &mut out,
            "imageCredentialProviderConfig",
            &config.credential_provider_config,
        );
        text(
            &mut out,
            "imageCredentialProviderBinDir",
            &config.credential_provider_bin_dir,
        );
        out
    }

    fn key(&self, config: &RawConfig, key: Key) -> String {
        let mut out = String::new();
        let name = key.name();
        match key {
            Key::Address => self.address(&mut out, 0, name, &config.address),
            Key::Auth => self.auth(&mut out, 0, &config.auth),
            Key::AuthFile => text(&mut out, 0, name, &config.auth_file),
            Key::AuthSecret => text(&mut out, 0, name, &config.auth_secret),
            Key::OfflinePriority => plain(&mut out, 0, name, &config.offline_priority),
            Key::UseNodeCache => self.node_cache_use(&mut out, name, &config.use_node_cache),
            Key::Registries => self.list(&mut out, name, &config.registries, Self::registry),
            Key::Redirects => self.list(&mut out, name, &config.redirects, Self::redirect),
            Key::Force => plain(&mut out, 0, name, &config.force),
            Key::Debug => plain(&mut out, 0, name, &config.debug),
            Key::Timeout => time(&mut out, 0, name, &config.timeout),
            Key::ReloadInterval => time(&mut out, 0, name, &config.reload_interval),
            Key::Cache => cache(&mut out, &config.cache),
            Key::NodeCache => self.node_cache(&mut out, &config.node_cache),
        }
        out
    }

    fn list<T>(
        &self,
        out: &mut String,
        name: &str,
        list: &Option<Located<Vec<T>>>,
        entry: impl Fn(&Self, &T) -> String,
    ) {
        let Some(list) = list else { return };
        if list.value.is_empty() {
            return field(out, 0, name, "[]");
        }
        out.push_str(&format!("{name}:\n"));
        for item in &list.value {
            let fields = entry(self, item);
            if fields.is_empty() {
                out.push_str("  - {}\n");
            }
            for (at, line) in fields.lines().enumerate() {
                let lead = if at == 0 { "  - " } else { "    " };
                out.push_str(&format!("{lead}{line}\n"));
            }
        }
    }

    fn registry(&self, entry: &RawRegistry) -> String {
        let mut out = String::new();
        self.address(&mut out, 0, "address", &entry.address);
        self.auth(&mut out, 0, &entry.auth);
        text(&mut out, 0, "authFile", &entry.auth_file);
        text(&mut out, 0, "authSecret", &entry.auth_secret);
        plain(&mut out, 0, "priority", &entry.priority);
        text(&mut out, 0, "pullSecret", &entry.pull_secret);
        text(&mut out, 0, "layout", &entry.layout);
        if let Some(hosts) = &entry.mirror_of {
            field(&mut out, 0, "mirrorOf", &flow(&hosts.value));
        }
        text(&mut out, 0, "caFile", &entry.ca_file);
        plain(
            &mut out,
            0,
            "insecureSkipVerify",
            &entry.insecure_skip_verify,
        );
        out
    }

    fn redirect(&self, entry: &RawRedirect) -> String {
        let mut out = String::new();
        text(&mut out, 0, "src", &entry.src);
        self.address(&mut out, 0, "to", &entry.to);
        text(&mut out, 0, "name", &entry.name);
        text(&mut out, 0, "pullSecret", &entry.pull_secret);
        plain(&mut out, 0, "canonical", &entry.canonical);
        self.auth(&mut out, 0, &entry.auth);
        text(&mut out, 0, "authFile", &entry.auth_file);
        text(&mut out, 0, "authSecret", &entry.auth_secret);
        plain(&mut out, 0, "priority", &entry.priority);
        text(&mut out, 0, "caFile", &entry.ca_file);
        plain(
            &mut out,
            0,
            "insecureSkipVerify",
            &entry.insecure_skip_verify,
        );
        out
    }

    fn address(&self, out: &mut String, indent: usize, name: &str, at: &Option<Located<String>>) {
        let Some(at) = at else { return };
        if self.masked {
            field(out, indent, name, &scalar(&without_credentials(&at.value)));
        } else {
            field(out, indent, name, &scalar(at.value.trim()));
        }
    }

    fn node_cache(&self, out: &mut String, cache: &RawNodeCache) {
        let mut fields = String::new();
        list(&mut fields, 2, "listen", &cache.listen);
        list(&mut fields, 2, "names", &cache.names);
        list(&mut fields, 2, "allow", &cache.allow);
        if let Some(tls) = &cache.tls {
            fields.push_str("  tls:\n");
            text(&mut fields, 4, "certFile", &tls.value.cert_file);
            text(&mut fields, 4, "keyFile", &tls.value.key_file);
            text(&mut fields, 4, "clientCA", &tls.value.client_ca);
        }
        text(&mut fields, 2, "dir", &cache.dir);
        text(&mut fields, 2, "maxSize", &cache.max_size);
        text(&mut fields, 2, "minFree", &cache.min_free);
        time(&mut fields, 2, "tagTTL", &cache.tag_ttl);
        time(&mut fields, 2, "maxStale", &cache.max_stale);
        time(&mut fields, 2, "authStale", &cache.auth_stale);
        plain(&mut fields, 2, "serveDeleted", &cache.serve_deleted);
        time(&mut fields, 2, "authTTL", &cache.auth_ttl);
        plain(&mut fields, 2, "parallel", &cache.parallel);
        text(&mut fields, 2, "parallelAbove", &cache.parallel_above);
        if let Some(s3) = &cache.s3 {
            fields.push_str("  store:\n    s3:\n");
            let s3 = &s3.value;
            text(&mut fields, 6, "bucket", &s3.bucket);
            text(&mut fields, 6, "endpoint", &s3.endpoint);
            text(&mut fields, 6, "region", &s3.region);
            text(&mut fields, 6, "prefix", &s3.prefix);
            plain(&mut fields, 6, "pathStyle", &s3.path_style);
            text(&mut fields, 6, "caFile", &s3.ca_file);
            time(&mut fields, 6, "unusedFor", &s3.unused_for);
            if let Some(credentials) = &s3.credentials {
                self.s3_credentials(&mut fields, &credentials.value);
            }
        }
        text(&mut fields, 2, "metricsAddress", &cache.metrics_address);
        if !fields.is_empty() {
            out.push_str("nodeCache:\n");
            out.push_str(&fields);
        }
    }

    fn s3_credentials(&self, out: &mut String, credentials: &RawS3Credentials) {
        if self.masked {
            return field(out, 6, "credentials", "***");
        }
        let parts = credentials.parts();
        let parts = parts.iter().filter(|(_, text)| !text.is_empty());
        let parts: Vec<_> = parts
            .map(|(name, text)| format!("{name}: {}", quoted(text)))
            .collect();
        field(out, 6, "credentials", &format!("{{{}}}", parts.join(", ")));
    }

    fn node_cache_use(
        &self,
        out: &mut String,
        name: &str,
        written: &Option<Located<RawNodeCacheUse>>,
    ) {
        let Some(written) = written else { return };
        let value = match &written.value {
            RawNodeCacheUse::Switch(on) => on.to_string(),
            RawNodeCacheUse::Address(address) if self.masked => {
                scalar(&without_credentials(address))
            }
            RawNodeCacheUse::Address(address) => scalar(address.trim()),
        };
        field(out, 0, name, &value);
    }

    /// `user:password`, which the predecessor reads too, wherever that reads back as the same two.
    fn auth(&self, out: &mut String, indent: usize, auth: &Option<Located<RawAuth>>) {
        let Some(auth) = auth else { return };
        if self.masked {
            return field(out, indent, "auth", "***");
        }
        match &auth.value {
            RawAuth::Pair(pair) => field(out, indent, "auth", &scalar(pair.expose_secret())),
            RawAuth::Split { username, password } => {
                let (username, password) = (username.expose_secret(), password.expose_secret());
                let pair = format!("{username}:{password}");
                if username.contains(':') || username.contains("${") || pair.trim() != pair {
                    let split = format!(
                        "{{username: {}, password: {}}}",
                        quoted(username),
                        quoted(password)
                    );
                    field(out, indent, "auth", &split);
                } else {
                    field(out, indent, "auth", &scalar(&pair));
                }
            }
        }
    }
}

fn cache(out: &mut String, cache: &RawCache) {
    let mut fields = String::new();
    plain(&mut fields, 2, "imageCacheSize", &cache.image_cache_size);
    time(&mut fields, 2, "imageCacheTTL", &cache.image_cache_ttl);
    time(&mut fields, 2, "domainCacheTTL", &cache.domain_cache_ttl);
    time(&mut fields, 2, "negativeTTL", &cache.negative_ttl);
    time(
        &mut fields,
        2,
        "statsLogInterval",
        &cache.stats_log_interval,
    );
    plain(&mut fields, 2, "disableStats", &cache.disable_stats);
    text(&mut fields, 2, "prefix", &cache.prefix);
    text(&mut fields, 2, "images", &cache.images);
    for (name, patterns) in [("include", &cache.include), ("exclude", &cache.exclude)] {
        if let Some(patterns) = patterns {
            field(&mut fields, 2, name, &flow(&patterns.value));
        }
    }
    if !fields.is_empty() {
        out.push_str("cache:\n");
        out.push_str(&fields);
    }
}

fn flow(texts: &[Located<String>]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(&text.value)).collect();
    format!("[{}]", texts.join(", "))
}

fn list(
    out: &mut String,
    indent: usize,
    name: &str,
    written: &Option<Located<Vec<Located<String>>>>,
) {
    if let Some(list) = written {
        field(out, indent, name, &flow(&list.value));
    }
}

fn field(out: &mut String, indent: usize, name: &str, value: &str) {
    out.push_str(&format!("{:indent$}{name}: {value}\n", ""));
}

fn text(out: &mut String, indent: usize, name: &str, value: &Option<Located<String>>) {
    if let Some(value) = value {
        field(out, indent, name, &scalar(value.value.trim()));
    }
}

fn plain<T: ToString>(out: &mut String, indent: usize, name: &str, value: &Option<Located<T>>) {
    if let Some(value) = value {
        field(out, indent, name, &value.value.to_string());
    }
}

fn time(out: &mut String, indent: usize, name: &str, value: &Option<Located<std::time::Duration>>) {
    if let Some(value) = value {
        field(out, indent, name, &duration::format(value.value));
    }
}

/// A scalar, quoted unless no reader of YAML, old or new, could take it for anything but this text.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let fits = |c: char| c.is_ascii_alphanumeric() || "_./:-".contains(c);
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(fits)
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if safe { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Line ends to some readers, and what YAML doesn't call printable.
            c if c.is_control()
                || matches!(
                    c,
                    '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                ) =>
            {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
