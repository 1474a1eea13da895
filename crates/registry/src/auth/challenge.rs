//! `WWW-Authenticate`: what a registry asks for (RFC 9110, section 11.6.1; RFC 6750, section 3).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Header lines that are looked at; a registry sends one or two.
const MAX_HEADERS: usize = 8;
/// Bytes of one header line that are looked at.
const MAX_BYTES: usize = 8 * 1024;
/// Challenges that are kept.
const MAX_CHALLENGES: usize = 16;

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// Names in lower case, values unquoted, in the order they came in.
    pub(crate) params: Vec<(String, String)>,
}

impl Challenge {
    /// Value of the first parameter of that (lower-case) name, unless it is empty.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// All challenges of an answer, in order. What can't be read is left out: a registry that asks for
/// something unknown beside Bearer must still be answered.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in headers
        .get_all(WWW_AUTHENTICATE)
        .into_iter()
        .take(MAX_HEADERS)
    {
        let bytes = value.as_bytes();
        let text = String::from_utf8_lossy(bytes.get(..MAX_BYTES).unwrap_or(bytes));
        parse(&text, &mut found);
        if found.len() >= MAX_CHALLENGES {
            found.truncate(MAX_CHALLENGES);
            break;
        }
    }
    found
}

fn parse(text: &str, found: &mut Vec<Challenge>) {
    let mut rest = Cursor(text);
    while found.len() < MAX_CHALLENGES {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let scheme = rest.token();
        if scheme.is_empty() {
            // Neither a scheme nor the end: a stray character that nothing can follow sensibly.
            return;
        }
        let mut challenge = Challenge {
            scheme: scheme.to_ascii_lowercase(),
            params: Vec::new(),
        };
        while let Some((name, value)) = rest.param() {
            challenge.params.push((name, value));
            rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        }
        rest.token68();
        found.push(challenge);
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn take(&mut self, what: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !what(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn token(&mut self) -> &'a str {
        self.take(is_token_char)
    }

    /// `name = value` if that is what comes next; else nothing is consumed, because it is the
    /// scheme of the next challenge.
    fn param(&mut self) -> Option<(String, String)> {
        let mut ahead = Cursor(self.0);
        ahead.skip(|c| c.is_ascii_whitespace());
        let name = ahead.token();
        ahead.skip(|c| c.is_ascii_whitespace());
        ahead.0 = ahead.0.strip_prefix('=')?;
        if name.is_empty() || ahead.0.is_empty() || ahead.0.starts_with(['=', ',']) {
            return None; // The padding of a token68.
        }
        ahead.skip(|c| c.is_ascii_whitespace());
        let value = match ahead.0.strip_prefix('"') {
            Some(quoted) => {
                ahead.0 = quoted;
                ahead.quoted()
            }
            // Wider than the grammar's token: registries send bare URLs.
            None => ahead
                .take(|c| c != ',' && !c.is_ascii_whitespace())
                .to_owned(),
        };
        self.0 = ahead.0;
        Some((name.to_ascii_lowercase(), value))
    }

    /// The inside of a quoted string; one that never ends is taken as it is.
    fn quoted(&mut self) -> String {
        let mut value = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                _ => value.push(c),
            }
        }
        self.0 = chars.as_str();
        value
    }

    /// Skips the credentials-like blob that Negotiate and its kin put in place of parameters.
    fn token68(&mut self) {
        let mut ahead = Cursor(self.0);
        ahead.skip(|c| c == ' ');
        let blob = ahead.take(|c| is_token_char(c) || matches!(c, '/' | '='));
        if blob.contains(['=', '/']) {
            self.0 = ahead.0;
        }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parsed(lines: &[&str]) -> Vec<(String, Vec<(String, String)>)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        challenges(&headers)
            .into_iter()
            .map(|c| (c.scheme, c.params))
            .collect()
    }

    fn expected(scheme: &str, params: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let params = params
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        (scheme.to_owned(), params)
    }

    #[test]
    fn what_registries_send() {
        for (line, want) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                vec![expected(
                    "bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:library/nginx:pull"),
                    ],
                )],
            ),
            (
                r#"BASIC realm="Registry Realm""#,
                vec![expected("basic", &[("realm", "Registry Realm")])],
            ),
            ("Basic", vec![expected("basic", &[])]),
            (
                r#"bearer Realm = https://a/t , scope="repository:a:pull,push" ,error="insufficient_scope""#,
                vec![expected(
                    "bearer",
                    &[
                        ("realm", "https://a/t"),
                        ("scope", "repository:a:pull,push"),
                        ("error", "insufficient_scope"),
                    ],
                )],
            ),
            (
                r#"Basic realm="a, b \"c\"", Bearer realm="https://t/x=y,z""#,
                vec![
                    expected("basic", &[("realm", r#"a, b "c""#)]),
                    expected("bearer", &[("realm", "https://t/x=y,z")]),
                ],
            ),
            (
                r#"Negotiate, Negotiate YWJj/ZA==, Basic realm="x""#,
                vec![
                    expected("negotiate", &[]),
                    expected("negotiate", &[]),
                    expected("basic", &[("realm", "x")]),
                ],
            ),
        ] {
            assert_eq!(parsed(&[line]), want, "{line}");
        }
    }

    #[test]
    fn several_headers_keep_their_order() {
        assert_eq!(
            parsed(&["Basic realm=\"x\"", "Bearer realm=\"y\""]),
            vec![
                expected("basic", &[("realm", "x")]),
                expected("bearer", &[("realm", "y")])
            ]
        );
    }

    #[test]
    fn garbage_is_no_challenge_and_no_panic() {
        for line in [
            "",
            ",,,",
            "=",
            "\"",
            "Bearer realm=\"never ends",
            "Bearer realm=\"x\\",
            "Bearer =",
            "Bearer realm=",
            "\u{fc}\u{fc} x",
        ] {
            let _ = parsed(&[line]);
        }
        let many = "Basic, ".repeat(100_000);
        assert_eq!(parsed(&[&many]).len(), MAX_CHALLENGES);
        let long = format!("Bearer realm=\"{}\"", "x".repeat(100_000));
        assert!(parsed(&[&long])[0].1[0].1.len() <= MAX_BYTES);
    }

    #[test]
    fn empty_parameters_count_as_absent() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer service=\"\",realm=\"r\""),
        );
        let found = challenges(&headers);
        assert_eq!(found[0].param("service"), None);
        assert_eq!(found[0].param("realm"), Some("r"));
    }
}
