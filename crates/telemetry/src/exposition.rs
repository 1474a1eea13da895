//! The two text formats of metrics: OpenMetrics, and Prometheus' older one (0.0.4) for tools that know
//! no other.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;

use crate::names::OPEN_METRICS;

/// The answer to a request for metrics, in the format that `headers` ask for.
pub fn answer(headers: &HeaderMap, open_metrics: String) -> Response<Full<Bytes>> {
    let accept = headers.get(ACCEPT).map(HeaderValue::to_str);
    let format = Format::wanted(accept.and_then(Result::ok));
    let mut answer = Response::new(Full::new(format.write(open_metrics).into()));
    for (name, value) in [(CONTENT_TYPE, format.content_type()), (VARY, "Accept")] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// Content type of the older format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The one with the higher quality in `accept`; OpenMetrics where both are equal. A browser gets the
    /// older one, because it shows that and would save the other to a file.
    fn wanted(accept: Option<&str>) -> Self {
        let Some(accept) = accept else {
            return Self::OpenMetrics;
        };
        let open = quality_of(
            accept,
            &["application/openmetrics-text", "application/*", "*/*"],
        );
        let plain = quality_of(accept, &["text/plain", "text/*", "*/*"]);
        if plain.max(quality_of(accept, &["text/html"])) > open {
            Self::Prometheus
        } else {
            Self::OpenMetrics
        }
    }

    /// Its content type.
    fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPEN_METRICS,
            Self::Prometheus => PROMETHEUS,
        }
    }

    /// `open_metrics` in this format.
    fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => prometheus(&open_metrics),
        }
    }
}

/// The quality (`q`) of a kind of content, in thousandths: of the first of `names` that `accept` has. A
/// wildcard counts for a little less than a name, so that what is named wins.
fn quality_of(accept: &str, names: &[&str]) -> u16 {
    let by_name = |(less, name): (u16, &&str)| {
        let named = ranges(accept).filter(|(range, _)| range.eq_ignore_ascii_case(name));
        let quality = named.map(|(_, quality)| quality).max()?;
        Some(quality.saturating_sub(less))
    };
    (0..).zip(names).find_map(by_name).unwrap_or(0)
}

/// The media ranges of an `Accept`, each with its `q` in thousandths.
fn ranges(accept: &str) -> impl Iterator<Item = (&str, u16)> {
    accept.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts
            .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .find_map(|q| q.parse::<f32>().ok())
            .unwrap_or(1.0);
        // A float becomes an integer by saturation, whatever it was.
        (name, (quality.clamp(0.0, 1.0) * 1000.0) as u16)
    })
}

/// OpenMetrics text in the older format. It has no units, no end mark, and no `info`, `stateset` or
/// `unknown`; the name of a counter there is the one that its samples have.
///
/// This is for what [`crate::metrics`] writes, which has neither timestamps nor exemplars: they are
/// written differently in the two formats, and are not looked for.
fn prometheus(open_metrics: &str) -> String {
    let kinds: HashMap<&str, &str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut out = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some((name, kind)) = described(line, "# TYPE ") {
            let name = sample_name(name, kind);
            push(&mut out, &["# TYPE ", &name, " ", plain_kind(kind)]);
        } else if let Some((name, help)) = described(line, "# HELP ") {
            let name = sample_name(name, kinds.get(name).copied().unwrap_or_default());
            // Quotes are escaped in OpenMetrics' help, and mustn't be here.
            push(
                &mut out,
                &["# HELP ", &name, " ", &help.replace("\\\"", "\"")],
            );
        } else if !line.starts_with('#') {
            push(&mut out, &[line]);
        }
    }
    out
}

fn described<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(kind)?.split_once(' ')
}

fn sample_name<'a>(family: &'a str, kind: &str) -> Cow<'a, str> {
    match kind {
        "counter" => format!("{family}_total").into(),
        "info" => format!("{family}_info").into(),
        _ => family.into(),
    }
}

fn plain_kind(kind: &str) -> &str {
    match kind {
        "info" | "stateset" => "gauge",
        "unknown" => "untyped",
        other => other,
    }
}

fn push(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_that_is_liked_better() {
        use Format::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            (None, OpenMetrics),
            (Some("*/*"), OpenMetrics),
            (Some(""), OpenMetrics),
            (Some("application/json"), OpenMetrics),
            (Some("text/plain"), Prometheus),
            (Some("text/*"), Prometheus),
            (Some("TEXT/PLAIN; version=0.0.4"), Prometheus),
            // Prometheus before OpenMetrics, now, and told to prefer the old format.
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), Prometheus),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;\
                     version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
                ),
                OpenMetrics,
            ),
            (
                Some(
                    "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
                ),
                Prometheus,
            ),
            // A browser.
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
                Prometheus,
            ),
            (Some("application/openmetrics-text;q=0, */*"), Prometheus),
            (Some("text/plain;q=x"), Prometheus),
        ] {
            assert_eq!(Format::wanted(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format() {
        let open_metrics = "\
# HELP a_build Which \\\"build\\\".
# TYPE a_build info
a_build_info{version=\"1\"} 1
# HELP a_calls Calls.
# TYPE a_calls counter
a_calls_total{method=\"x\"} 2
# HELP a_time_seconds Time.
# TYPE a_time_seconds histogram
# UNIT a_time_seconds seconds
a_time_seconds_sum 0.5
a_time_seconds_count 1
a_time_seconds_bucket{le=\"+Inf\"} 1
# EOF
";
        let expected = "\
# HELP a_build_info Which \"build\".
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
# HELP a_calls_total Calls.
# TYPE a_calls_total counter
a_calls_total{method=\"x\"} 2
# HELP a_time_seconds Time.
# TYPE a_time_seconds histogram
a_time_seconds_sum 0.5
a_time_seconds_count 1
a_time_seconds_bucket{le=\"+Inf\"} 1
";
        assert_eq!(prometheus(open_metrics), expected);
    }
}
