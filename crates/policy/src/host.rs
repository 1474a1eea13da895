//! Hosts as image names have them.

/// Docker Hub goes by three names; `docker.io` is the one references use.
pub(crate) fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

/// Whether the first part of a name is read as a host because of its form: it has a `.` or a `:`, or is
/// `localhost`. (An upper-case letter makes it one too, and nobody's host is only upper case.)
pub(crate) fn has_host_form(host: &str) -> bool {
    host.contains(['.', ':']) || host == "localhost"
}

/// `host[:port]` by the grammar: DNS-like components or a bracketed IPv6 address.
pub(crate) fn is_domain(text: &str) -> bool {
    let after_host = text.rfind(']').map_or(0, |end| end + 1);
    let colon = text
        .get(after_host..)
        .and_then(|rest| rest.find(':'))
        .map_or(text.len(), |at| at + after_host);
    let (host, port) = text.split_at(colon);
    let port_fits = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let host_fits = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => is_domain_name(host),
    };
    port_fits && host_fits
}

/// `domain-component *("." domain-component)`: letters, digits and inner hyphens.
pub(crate) fn is_domain_name(host: &str) -> bool {
    host.split('.').all(|component| {
        let bytes = component.as_bytes();
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last)) => {
                first.is_ascii_alphanumeric()
                    && last.is_ascii_alphanumeric()
                    && bytes
                        .iter()
                        .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            }
            _ => false,
        }
    })
}
