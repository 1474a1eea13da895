//! Both text formats, read by a parser that is not ours.

use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::prometheus::parse_prometheus;

use crate::world::{World, client};

async fn scrape(world: &World, accept: &str) -> (String, String) {
    let request = client().get(world.url("/metrics")).header("Accept", accept);
    let got = request.send().await.unwrap();
    assert_eq!(got.headers()["vary"], "Accept");
    let kind = got.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, got.text().await.unwrap())
}

#[tokio::test]
async fn open_metrics() {
    let world = World::start().await;
    let (kind, text) = scrape(&world, "application/openmetrics-text; version=1.0.0").await;
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let parsed = parse_openmetrics(&without_units(&text));
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (family, samples) in [
        ("image_cri_shim_calls", 2),
        ("image_cri_shim_probe_duration_seconds", 1),
        ("image_cri_shim_build", 1),
        ("process_cpu_seconds", 1),
    ] {
        let family = parsed
            .families
            .get(family)
            .unwrap_or_else(|| panic!("{family}\n{text}"));
        assert_eq!(family.iter_samples().count(), samples, "{text}");
    }
}

#[tokio::test]
async fn prometheus_text() {
    let world = World::start().await;
    let (kind, text) = scrape(&world, "text/plain;version=0.0.4").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let parsed = parse_prometheus(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for (family, samples) in [
        ("image_cri_shim_calls_total", 2),
        ("image_cri_shim_probe_duration_seconds", 1),
        ("image_cri_shim_build_info", 1),
        ("process_cpu_seconds_total", 1),
    ] {
        let family = parsed
            .families
            .get(family)
            .unwrap_or_else(|| panic!("{family}\n{text}"));
        assert_eq!(family.iter_samples().count(), samples, "{text}");
    }
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
}

/// Both have the same samples, character by character.
#[tokio::test]
async fn nothing_is_lost_on_the_way() {
    let world = World::start().await;
    let (_, open) = scrape(&world, "*/*").await;
    let (_, plain) = scrape(&world, "text/plain").await;
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(ToOwned::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&plain));
}

/// The parser holds that a histogram has no unit, which the specification doesn't, and doesn't look
/// whether a unit is the end of the name, which it must be. So this looks, and the parser doesn't.
fn without_units(text: &str) -> String {
    let (units, others): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.starts_with("# UNIT "));
    assert!(!units.is_empty(), "{text}");
    for line in units {
        let mut words = line.split(' ').skip(2);
        let (name, unit) = (words.next().unwrap(), words.next().unwrap());
        assert!(name.ends_with(&format!("_{unit}")), "{line}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
    }
    others.join("\n") + "\n"
}

/// That the parser takes a text means something only if it refuses others.
#[test]
fn the_parser_is_strict() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 1\n# EOF\n";
    assert!(parse_openmetrics(good).is_ok());
    for (what, text) in [
        ("no end", "# TYPE a counter\na_total 1\n"),
        (
            "a counter by another name",
            "# TYPE a counter\na 1\n# EOF\n",
        ),
        (
            "a label without quotes",
            "# TYPE a gauge\na{x=1} 1\n# EOF\n",
        ),
        ("the same twice", "# TYPE a gauge\na 1\na 2\n# EOF\n"),
        (
            "families mixed up",
            "# TYPE a gauge\na{x=\"1\"} 1\n# TYPE b gauge\nb 1\na{x=\"2\"} 1\n# EOF\n",
        ),
        (
            "a counter that is negative",
            "# TYPE a counter\na_total -1\n# EOF\n",
        ),
        (
            "buckets without +Inf",
            "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_count 1\na_sum 1\n# EOF\n",
        ),
        (
            "two types",
            "# TYPE a gauge\n# TYPE a counter\na_total 1\n# EOF\n",
        ),
    ] {
        assert!(parse_openmetrics(text).is_err(), "{what} was taken");
    }
}
