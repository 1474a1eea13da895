//! Patterns of hosts as kubelet has them: in the keys of docker configs, and in `matchImages` of
//! credential providers.

/// Whether `image`, a name without tag and digest, is matched: the host by its parts between dots,
/// where `*`, `?` and `[…]` stay within one part; the port the same; the path a prefix. A scheme before
/// either is left aside.
pub fn matches_image(pattern: &str, image: &str) -> bool {
    let (pattern_host, pattern_path) = split(pattern);
    let (image_host, image_path) = split(image);
    image_path.starts_with(pattern_path) && matches_host(pattern_host, image_host)
}

/// The same for `host[:port]` alone.
pub(crate) fn matches_host(pattern: &str, host: &str) -> bool {
    if pattern == host {
        // Also for what would be a pattern: `[::1]`.
        return true;
    }
    let (pattern_name, pattern_port) = split_port(pattern);
    let (name, port) = split_port(host);
    let (mut patterns, mut parts) = (pattern_name.split('.'), name.split('.'));
    if pattern_port != port {
        return false;
    }
    loop {
        match (patterns.next(), parts.next()) {
            (Some(pattern), Some(part)) if glob(pattern.as_bytes(), part.as_bytes()) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    text.split_once('/').unwrap_or((text, ""))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    }
}

/// `*`, `?` and `[…]` of Go's `filepath.Match`. Goes back to the last `*` only, so that no pattern takes
/// more than the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(at..).unwrap_or_default();
        if let Some((b'*', _)) = rest.split_first() {
            star = Some((at + 1, read));
            at += 1;
            continue;
        }
        match (text.get(read), one(rest)) {
            (None, _) if rest.is_empty() => return true,
            (Some(byte), Some(one)) if one.accepts(*byte) => {
                at += one.length();
                read += 1;
            }
            _ => match &mut star {
                Some((after, from)) if *from < text.len() => {
                    *from += 1;
                    (at, read) = (*after, *from);
                }
                _ => return false,
            },
        }
    }
}

/// The part of a pattern that stands for one byte.
enum One<'p> {
    Any,
    Byte(u8),
    Class(&'p [u8]),
}

fn one(pattern: &[u8]) -> Option<One<'_>> {
    match pattern.split_first()? {
        (b'?', _) => Some(One::Any),
        (b'[', rest) => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            rest.get(..end).map(One::Class)
        }
        (byte, _) => Some(One::Byte(*byte)),
    }
}

impl One<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Any | Self::Byte(_) => 1,
            Self::Class(inside) => inside.len() + 2,
        }
    }

    fn accepts(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Byte(one) => *one == byte,
            Self::Class(inside) => {
                let (negated, inside) = match inside.strip_prefix(b"^") {
                    Some(inside) => (true, inside),
                    None => (false, *inside),
                };
                in_class(inside, byte) != negated
            }
        }
    }
}

fn in_class(mut inside: &[u8], byte: u8) -> bool {
    loop {
        inside = match inside {
            [] => return false,
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Out of kubelet's own tables (`TestURLsMatch`, `TestDockerKeyringForGlob`).
    #[test]
    fn what_kubelet_matches() {
        for (pattern, image, matched) in [
            ("gcr.io", "gcr.io", true),
            ("gcr.io", "gcr.io/project/app", true),
            ("*.gcr.io", "us.gcr.io/app", true),
            ("*.gcr.io", "gcr.io/app", false),
            ("*.*.gcr.io", "a.b.gcr.io", true),
            ("*.gcr.io", "a.b.gcr.io", false),
            ("prefix.*.gcr.io", "prefix.x.gcr.io", true),
            ("*-eu.gcr.io", "fast-eu.gcr.io", true),
            ("gcr.io:5000", "gcr.io", false),
            ("*.gcr.io:5000", "us.gcr.io:5000/a", true),
            ("*.gcr.io/team", "us.gcr.io/team/app", true),
            ("*.gcr.io/team", "us.gcr.io/other", false),
            ("https://*.gcr.io", "us.gcr.io/app", true),
            ("reg-[0-9].io", "reg-7.io", true),
            ("reg-[^0-9].io", "reg-7.io", false),
            ("reg-?.io", "reg-.io", false),
            ("*", "localhost", true),
            ("[::1]:5000", "[::1]:5000/app", true),
            ("[", "x", false),
        ] {
            assert_eq!(matches_image(pattern, image), matched, "{pattern} {image}");
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(60);
        assert!(!matches_host(&pattern, &"a".repeat(59)));
        assert!(matches_host(&pattern, &"a".repeat(250)));
        assert!(!matches_host(&pattern, &format!("{}b", "a".repeat(250))));
    }
}
