//! The metrics, as they are scraped.

use std::collections::BTreeSet;
use std::path::Path;

use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::prometheus::parse_prometheus;
use testkit::cri_api::RpcStatus;
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{shim, url};

/// The names in `docs/metrics.md`, but not the webhook's.
fn listed() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(file).unwrap();
    let sections = text
        .split("\n## ")
        .filter(|section| !section.starts_with("The webhook"));
    let names = sections
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("| `"));
    let names = names.filter_map(|line| line.split('`').next());
    names.map(ToOwned::to_owned).collect()
}

/// The oldest of HTTP: an answer ends with its connection.
async fn scrape(address: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn every_metric_is_in_the_list_and_parses() {
    let runtime = FakeRuntime::start().await.unwrap();
    let (good, mut away) = (
        FakeRegistry::start().unwrap(),
        FakeRegistry::start().unwrap(),
    );
    good.add(&Image::new("x"), "team/app", "1");
    away.stop().await;
    let config = format!(
        "address: {}\nregistries: [{{address: '{}', priority: 2000}}]",
        good.url(),
        away.url()
    );
    let shim = shim(&config, runtime.socket()).await;
    shim.client()
        .pull("quay.io/team/app:1", None)
        .await
        .unwrap();
    // One that the registry has and the runtime can't get from there.
    good.add(&Image::new("y"), "team/broken", "1");
    let broken = RpcStatus {
        code: 2,
        message: "no blob".to_owned(),
        details: Vec::new(),
    };
    runtime.fail(&format!("{}/team/broken:1", good.host()), broken);
    shim.client()
        .pull("quay.io/team/broken:1", None)
        .await
        .unwrap();

    let url = url(&shim).await;
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let scrape = async |accept: &str| scrape(address, accept).await;
    // Prometheus' own type first: the names are the ones that queries have.
    let plain = scrape("text/plain;version=0.0.4").await;
    let parsed = parse_prometheus(&plain).unwrap_or_else(|error| panic!("{error}\n{plain}"));
    let scraped: BTreeSet<String> = parsed.families.keys().cloned().collect();
    assert_eq!(scraped, listed(), "{plain}");
    for line in [
        format!(
            "image_cri_shim_registry_circuit_open{{registry=\"{}\"}} 1\n",
            away.url()
        ),
        format!(
            "image_cri_shim_pulls_total{{registry=\"{}\",place=\"offline\",result=\"ok\"}} 1\n",
            good.url()
        ),
        "image_cri_shim_pulls_total{registry=\"origin\",place=\"origin\",result=\"ok\"} 1\n"
            .to_owned(),
        "image_cri_shim_calls_total{method=\"PullImage\",code=\"OK\"} 2\n".to_owned(),
        "image_cri_shim_fallbacks_total{registry=\"origin\"} 1\n".to_owned(),
        "image_cri_shim_config_generation 1\n".to_owned(),
    ] {
        assert!(plain.contains(&line), "{line}\n{plain}");
    }
    assert!(!plain.contains("team"), "an image is no label\n{plain}");

    let open = scrape("application/openmetrics-text").await;
    // The parser holds that a histogram has no unit, which the specification doesn't.
    let without_units = open.lines().filter(|line| !line.starts_with("# UNIT "));
    let without_units = without_units.collect::<Vec<_>>().join("\n") + "\n";
    parse_openmetrics(&without_units).unwrap_or_else(|error| panic!("{error}\n{open}"));
}
