//! Each registry of the config: whether it can be reached, its certificate, its answer, and whether it takes our
//! credentials.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use policy::config::Settings;
use policy::rules::{EntryKind, Redirect, Registry as Entry};
use policy::{CredentialSource, Credentials, Endpoint, ProxySettings, TlsOptions};
use registry::{
    Admission, CaPlace, Cause, CertsDirs, Client, ClientOptions, Examination, Registry,
};
use telemetry::report::{RegistryState, Status};
use x509_parser::parse_x509_certificate;

use crate::environment::Environment;
use crate::host::Host;
use crate::patience::{Timely, within};
use crate::report::{Area, Line};
use crate::words;

/// A certificate that ends this soon is worth a word.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// More registries than this are not asked one by one.
const MAX_REGISTRIES: usize = 64;
/// Longest text of a registry that is quoted.
const MAX_DETAIL: usize = 400;

/// A place of the config, and what it said.
pub(crate) struct Facts {
    place: Place,
    /// What it said.
    pub(crate) seen: Timely<Examination>,
}

/// A place of the config.
#[derive(Clone)]
struct Place {
    endpoint: Endpoint,
    tls: TlsOptions,
    credentials: Option<Credentials>,
    source: Option<CredentialSource>,
    /// Why it has no credentials although it should.
    note: Option<String>,
    /// Whether it is the cache of this node.
    is_node_cache: bool,
    /// Where its CA is put.
    ca_place: Option<CaPlace>,
}

impl Facts {
    /// Its name for people.
    pub(crate) fn name(&self) -> String {
        self.place.endpoint.to_string()
    }
}

/// The places of a config, each once.
fn places(settings: &Settings, dirs: &CertsDirs) -> Vec<Place> {
    let of_registry = |entry: &Entry| Place {
        endpoint: entry.endpoint.clone(),
        tls: entry.tls.clone(),
        credentials: entry.credentials.clone(),
        source: entry.source.clone(),
        note: entry.note.clone(),
        is_node_cache: entry.kind == EntryKind::NodeCache,
        ca_place: dirs.ca_place(&entry.endpoint.domain()),
    };
    let of_redirect = |entry: &Redirect| Place {
        endpoint: entry.to.clone(),
        tls: entry.tls.clone(),
        credentials: entry.credentials.clone(),
        source: entry.source.clone(),
        note: entry.note.clone(),
        is_node_cache: false,
        ca_place: dirs.ca_place(&entry.to.domain()),
    };
    let registries = settings.rules.registries.iter().map(of_registry);
    let redirects = settings.rules.redirects.iter().map(of_redirect);
    let mut all: Vec<Place> = Vec::new();
    for place in registries.chain(redirects) {
        let is_known = |other: &Place| other.endpoint.same_place(&place.endpoint);
        if !all.iter().any(is_known) {
            all.push(place);
        }
    }
    all
}

/// Asks every registry of `settings`, which has its credentials, at once. `runtime` is the runtime's socket.
pub(crate) async fn gather(
    host: &Host,
    settings: &Settings,
    environment: &Environment,
    runtime: &Path,
    limit: Duration,
) -> Vec<Facts> {
    let dirs = CertsDirs::of(&in_tree(host, runtime));
    let client = client(host, &dirs, environment);
    let asked = places(settings, &dirs)
        .into_iter()
        .take(MAX_REGISTRIES)
        .map(|place| {
            let client = client.clone();
            let registry = Registry {
                endpoint: place.endpoint.clone(),
                credentials: place.credentials.clone(),
                tls: TlsOptions {
                    ca_file: place.tls.ca_file.as_ref().map(|file| in_tree(host, file)),
                    ..place.tls.clone()
                },
            };
            async move {
                let seen = client.examine(&registry, limit);
                // It keeps the deadline itself; this is for what nobody has thought of.
                let seen = within(limit * 2, seen).await;
                Facts { place, seen }
            }
        });
    futures_util::future::join_all(asked).await
}

fn in_tree(host: &Host, path: &Path) -> PathBuf {
    host.place(path).unwrap_or_else(|_| path.to_owned())
}

/// As the shim has it: its proxies, and the runtime's certificates.
fn client(host: &Host, dirs: &CertsDirs, environment: &Environment) -> Client {
    let all = |dirs: &[PathBuf]| dirs.iter().map(|dir| in_tree(host, dir)).collect();
    Client::new(ClientOptions {
        certs_dirs: CertsDirs {
            containerd: all(&dirs.containerd),
            docker: all(&dirs.docker),
            written_from: dirs.written_from.clone(),
        },
        proxies: ProxySettings::from_lookup(|name| environment.get(name)),
        ..ClientOptions::default()
    })
}

/// The lines of all registries. `status` is the running shim's.
pub(crate) fn judge(all: &[Facts], status: Option<&Status>, now: SystemTime) -> Vec<Line> {
    if all.is_empty() {
        let text = "the config names no registry: every pull goes to its origin";
        return vec![Line::ok(Area::Registries, "registry", text)];
    }
    let mut lines = Vec::new();
    for facts in all {
        let mut of_one = one(facts, status, now);
        if facts.place.is_node_cache {
            of_one.iter_mut().for_each(|line| line.area = Area::Cache);
        }
        lines.extend(of_one);
    }
    lines
}

/// One line where all is well, else one for each thing that is not.
fn one(facts: &Facts, status: Option<&Status>, now: SystemTime) -> Vec<Line> {
    let name = facts.name();
    let seen = match &facts.seen {
        Ok(seen) => seen,
        Err(late) => {
            let text = format!("{name}: {late}");
            return vec![Line::bad(
                Area::Registries,
                "registry",
                text,
                curl(&facts.place),
            )];
        }
    };
    let detail = policy::text::one_line(&seen.ping.detail, MAX_DETAIL);
    if let Err(cause) = seen.ping.outcome {
        return vec![unreachable(&facts.place, cause, &detail)];
    }
    let mut words = vec![format!("{name}: {detail}")];
    let mut lines = Vec::new();
    match certificate(&facts.place, seen, now) {
        Some(Ok(word)) => words.push(word),
        Some(Err(line)) => lines.push(*line),
        None => {}
    }
    match admission(&facts.place, &seen.admission) {
        Ok(word) => words.push(word),
        Err(line) => lines.push(*line),
    }
    lines.extend(circuit(&name, status));
    if lines.is_empty() {
        words.push(format!("{} ms", seen.ping.elapsed.as_millis()));
        lines.push(Line::ok(Area::Registries, "registry", words.join("; ")));
    }
    lines
}

fn curl(place: &Place) -> String {
    let Place { endpoint, tls, .. } = place;
    let mut options = String::new();
    if let Some(file) = &tls.ca_file {
        options.push_str(&format!(" --cacert {}", file.display()));
    }
    let scheme = match endpoint.scheme() {
        policy::Scheme::Http => "http",
        policy::Scheme::Https | policy::Scheme::HttpsThenHttp => "https",
    };
    let host = endpoint.api_host();
    let port = endpoint
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("curl -v{options} {scheme}://{host}{port}/v2/")
}

/// Why it can't be asked, and what mends that.
fn unreachable(place: &Place, cause: Cause, detail: &str) -> Line {
    let name = place.endpoint.to_string();
    let host = place.endpoint.api_host();
    let (check, mend) = match cause {
        Cause::Dns => (
            "registry.dns",
            format!(
                "getent hosts {host}   # then mend /etc/resolv.conf, or: echo ADDRESS {host} >> /etc/hosts"
            ),
        ),
        Cause::Tls => ("registry.certificate", of_tls(place, detail)),
        Cause::Status(status) => (
            "registry.answer",
            format!(
                "{}   # it answers {status}: look at its own log",
                curl(place)
            ),
        ),
        _ if place.is_node_cache => (
            "registry.reach",
            "systemctl restart image-cri-shim-cache".to_owned(),
        ),
        _ => (
            "registry.reach",
            format!(
                "{}   # is it running, and does a firewall or a proxy stand between?",
                curl(place)
            ),
        ),
    };
    Line::bad(Area::Registries, check, format!("{name}: {detail}"), mend)
}

/// By the words of `registry`, which knows what was wrong with the handshake.
fn of_tls(place: &Place, detail: &str) -> String {
    let domain = place.endpoint.domain();
    let host = place.endpoint.api_host();
    let address = format!("{host}:{}", place.endpoint.effective_port());
    if detail.contains("has expired") || detail.contains("for another host") {
        return format!(
            "openssl s_client -connect {address} -servername {host} </dev/null | openssl x509 -noout -dates -ext subjectAltName   # shows it; renew it on the registry"
        );
    }
    if detail.contains("not valid yet") {
        return "timedatectl set-ntp true   # sets this node's clock".to_owned();
    }
    if detail.contains("does not speak TLS") {
        return format!(
            "vi /etc/image-cri-shim.yaml   # write http://{domain}, if it may be asked in the clear"
        );
    }
    let file = match (&place.tls.ca_file, &place.ca_place) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(CaPlace::Directory(dir))) => dir.join("ca.crt").display().to_string(),
        (None, Some(CaPlace::RegistriesYaml(file))) => {
            return format!(
                "vi {}   # configs: {{\"{domain}\": {{tls: {{ca_file: CA.pem}}}}}}, with the whole path of the certificate of the authority that has signed it; then restart the node's service",
                file.display()
            );
        }
        (None, None) => "CA.pem".to_owned(),
    };
    format!(
        "install -D -m 644 CA.pem {file}   # CA.pem: the certificate of the authority that has signed it"
    )
}

/// When it ends, in words; a line where that is soon.
fn certificate(
    place: &Place,
    seen: &Examination,
    now: SystemTime,
) -> Option<Result<String, Box<Line>>> {
    let der = seen.certificate.as_ref()?;
    let (_, parsed) = parse_x509_certificate(der).ok()?;
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    let ends = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends))?;
    let date = humantime::format_rfc3339_seconds(ends).to_string();
    let date = date.split('T').next().unwrap_or_default().to_owned();
    let rest = ends.duration_since(now).unwrap_or_default();
    let skips = match place.tls.insecure_skip_verify {
        true => ", which is not verified (insecureSkipVerify)",
        false => "",
    };
    if rest > SOON || place.tls.insecure_skip_verify {
        return Some(Ok(format!("certificate until {date}{skips}")));
    }
    let name = place.endpoint.to_string();
    let days = rest.as_secs() / 86_400;
    Some(Err(Box::new(Line::warn(
        Area::Registries,
        "registry.certificate",
        format!(
            "{name}: its certificate ends on {date}, in {days} days; pulls from there fail from then on"
        ),
        format!(
            "openssl s_client -connect {}:{} </dev/null | openssl x509 -noout -dates   # renew it on the registry",
            place.endpoint.api_host(),
            place.endpoint.effective_port()
        ),
    ))))
}

/// Whether it takes our credentials, in words; a line where it does not.
fn admission(place: &Place, admission: &Admission) -> Result<String, Box<Line>> {
    const CHECK: &str = "registry.credentials";
    let name = place.endpoint.to_string();
    let stand = policy::credentials::place(place.source.as_ref());
    let edit = match &place.source {
        Some(CredentialSource::File(file)) => format!("vi {}", file.display()),
        Some(CredentialSource::Secret(secret)) => format!(
            "kubectl -n {} edit secret {secret}",
            policy::config::CONFIG_MAP_NAMESPACE
        ),
        Some(CredentialSource::Plugin) => {
            "journalctl -u image-cri-shim | grep -i plugin".to_owned()
        }
        None => "vi /etc/image-cri-shim.yaml".to_owned(),
    };
    let bad = |text: String| {
        let mend = format!(
            "{edit}   # put credentials there that {} takes",
            place.endpoint.domain()
        );
        Err(Box::new(Line::bad(
            Area::Registries,
            CHECK,
            format!("{name}: {text}"),
            mend,
        )))
    };
    if let Some(note) = &place.note {
        return bad(policy::text::one_line(note, MAX_DETAIL));
    }
    let cut = |detail: &str| policy::text::one_line(detail, MAX_DETAIL);
    match admission {
        Admission::Open => Ok("it asks nobody for credentials".to_owned()),
        Admission::Accepted => Ok(format!("the credentials of {stand} are accepted")),
        Admission::Anonymous => Ok("without credentials: what is public there".to_owned()),
        Admission::Wanted => bad(
            "it asks everybody for a user name and a password, and the config has none for it"
                .to_owned(),
        ),
        Admission::Refused { detail } => bad(format!(
            "the credentials of {stand} are refused: {}",
            cut(detail)
        )),
        Admission::Unknown { detail } => {
            let text = format!(
                "{name}: whether it takes the credentials of {stand} can't be found out: {}",
                cut(detail)
            );
            Err(Box::new(Line::bad(
                Area::Registries,
                CHECK,
                text,
                curl(place),
            )))
        }
    }
}

/// A registry that answers now, and that the running shim leaves out all the same.
fn circuit(name: &str, status: Option<&Status>) -> Option<Line> {
    let known = status?
        .registries
        .iter()
        .find(|known| known.address == name)?;
    (known.state == RegistryState::CircuitOpen).then(|| {
        let retry = Duration::from_millis(known.retry_in_ms.unwrap_or(0));
        Line::warn(
            Area::Registries,
            "registry.circuit",
            format!(
                "{name}: it answers now, but the running shim leaves it out after {} failures, and tries it again in {}: {}",
                known.failures,
                words::seconds(retry),
                policy::text::one_line(&known.detail, 200)
            ),
            "systemctl kill -s HUP image-cri-shim   # asks every registry again",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_ca_is_put_where_the_runtime_reads_it() {
        let (settings, _) = Settings::read("registries: [{address: reg.io:5000}]", &|_| None);
        let mends = |socket: &str| {
            let dirs = CertsDirs::of(Path::new(socket));
            let all = places(&settings, &dirs);
            of_tls(all.first().unwrap(), "signed by somebody")
        };
        for (socket, start) in [
            (
                "/run/containerd/containerd.sock",
                "install -D -m 644 CA.pem /etc/containerd/certs.d/reg.io:5000/ca.crt ",
            ),
            (
                "/var/run/crio/crio.sock",
                "install -D -m 644 CA.pem /etc/containers/certs.d/reg.io:5000/ca.crt ",
            ),
            (
                "/run/k3s/containerd/containerd.sock",
                "vi /etc/rancher/k3s/registries.yaml   # configs: {\"reg.io:5000\": {tls: {ca_file: ",
            ),
        ] {
            assert!(mends(socket).starts_with(start), "{}", mends(socket));
        }
    }
}
