//! A failed handshake in words, with what to do about it.

use rustls::{AlertDescription, CertificateError, Error};

use super::certs_d::CaPlace;
use super::verify::is_ca_as_server;
use policy::text::one_line;

/// Says why the handshake with `domain` failed. `ca_place` is where its CA would be
/// found; `problems` are files for this host that could not be used.
pub(crate) fn explain(
    error: &Error,
    domain: &str,
    ca_place: Option<&CaPlace>,
    problems: &[String],
) -> String {
    let install = match ca_place {
        Some(CaPlace::Directory(dir)) => format!(
            "set caFile for this registry, or install its CA in {}/",
            dir.display()
        ),
        Some(CaPlace::RegistriesYaml(file)) => format!(
            "set caFile for this registry, or tls.ca_file below configs: {domain} in {}, which is read when the node's service starts",
            file.display()
        ),
        None => "set caFile for this registry".to_owned(),
    };
    let mut text = match error {
        Error::InvalidCertificate(reason) => {
            let (what, todo) = certificate(reason, is_ca_as_server(error), domain, &install);
            format!("the certificate of {domain} {what}; {todo}")
        }
        Error::InvalidMessage(_) => format!(
            "{domain} does not speak TLS; if it is a plain-http registry, write http:// in its address"
        ),
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => format!(
            "{domain} wants a client certificate, or refuses ours ({}); configure `client` in its hosts.toml",
            one_line(&error.to_string(), 80)
        ),
        other => format!(
            "TLS with {domain} failed: {}",
            one_line(&other.to_string(), 120)
        ),
    };
    for problem in problems.iter().take(2) {
        text.push_str(" (");
        text.push_str(&one_line(problem, 160));
        text.push(')');
    }
    text
}

/// What is wrong with a certificate, and what to do.
fn certificate(
    reason: &CertificateError,
    is_ca: bool,
    domain: &str,
    install: &str,
) -> (String, String) {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "has expired".into(),
            "renew it on the registry, and check this node's clock".into(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "is not valid yet".into(),
            "check the clocks of this node and of the registry".into(),
        ),
        CertificateError::NotValidForName => (
            "is for another host".into(),
            "use a name that it is for in the registry's address".into(),
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() {
                "no host name at all".to_owned()
            } else {
                one_line(&presented.join(", "), 120)
            };
            (
                format!("is for another host (it names {names})"),
                "use one of those names in the registry's address, or renew it with this one"
                    .into(),
            )
        }
        CertificateError::UnknownIssuer => (
            "is signed by an authority that this node does not know".into(),
            install.into(),
        ),
        CertificateError::Revoked => ("was revoked".into(), format!("renew it on {domain}")),
        _ if is_ca => (
            "is a CA's own and not one that this node was told to trust".into(),
            install.into(),
        ),
        other => (
            format!("can't be verified ({})", one_line(&other.to_string(), 120)),
            install.into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_comes_with_what_to_do() {
        let usual = CaPlace::Directory("/etc/containerd/certs.d/reg.io:5000".into());
        let explained = |reason: CertificateError| {
            explain(
                &Error::InvalidCertificate(reason),
                "reg.io:5000",
                Some(&usual),
                &["CA file /x is not used: permission denied".to_owned()],
            )
        };
        let unknown = explained(CertificateError::UnknownIssuer);
        assert_eq!(
            unknown,
            "the certificate of reg.io:5000 is signed by an authority that this node does not know; \
             set caFile for this registry, or install its CA in /etc/containerd/certs.d/reg.io:5000/ \
             (CA file /x is not used: permission denied)"
        );
        let k3s = CaPlace::RegistriesYaml("/etc/rancher/k3s/registries.yaml".into());
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let unknown = explain(&unknown, "reg.io:5000", Some(&k3s), &[]);
        assert!(
            unknown.ends_with("or tls.ca_file below configs: reg.io:5000 in /etc/rancher/k3s/registries.yaml, which is read when the node's service starts"),
            "{unknown}"
        );
        assert!(explained(CertificateError::Expired).contains("has expired; renew"));
        assert!(explained(CertificateError::NotValidForName).contains("another host"));
    }
}
