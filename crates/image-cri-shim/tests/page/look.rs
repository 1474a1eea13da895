//! The page, in a real browser.

use rustix::process::Signal;
use testkit::containerd::Containerd;
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;

use crate::world::{page, shim, url, wait_for_row};

const PASSWORD: &str = "hunter2-pass:word";

/// Nothing went wrong, and nobody but `url` was asked for anything.
fn assert_quiet(page: &testkit::browser::Page, url: &str) {
    assert_eq!(page.complaints(), [""; 0]);
    let requests = page.requests();
    let strange = requests
        .iter()
        .filter(|request| !request.starts_with(url) && !request.starts_with("data:"));
    assert_eq!(strange.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn a_pull_shows_by_itself() {
    let registry = DockerRegistry::with_password("hugo", PASSWORD)
        .await
        .unwrap();
    let image = Image::new("on the page");
    registry
        .push(&image, "library/nginx", "1.27")
        .await
        .unwrap();
    let containerd = Containerd::start().await.unwrap();
    containerd.allow_http(&registry.host()).unwrap();
    let config = format!("address: {}\nauth: 'hugo:{PASSWORD}'", registry.url());
    let shim = shim(&config, containerd.socket()).await;
    let (_browser, page) = page(&shim).await;
    page.wait_for("document.body.innerText.includes('No pull yet')")
        .await;
    page.wait_for("document.body.innerText.includes('containerd')")
        .await;

    shim.client().pull("nginx:1.27", None).await.unwrap();
    wait_for_row(&page, &["nginx:1.27", &registry.host(), "decided in"]).await;
    // Asked and pulled from: both bars of its lane.
    page.wait_for("document.querySelectorAll('#pulls .lane:first-child :is(.bar.found, .bar.got)').length == 2")
        .await;
    page.evaluate("document.querySelector('summary').click()")
        .await
        .unwrap();
    let digest = format!(
        "document.querySelector('.more').innerText.includes('{}')",
        image.manifest_digest
    );
    page.wait_for(&digest).await;
    page.wait_for("document.querySelector('.more').innerText.includes('auth in the config')")
        .await;
    page.wait_for("document.querySelector('#registries tr').innerText.match(/1\\s+1\\s+1$/)")
        .await;

    // What it is made of has no password in it, in any spelling.
    let url = url(&shim).await;
    let base64 = "aHVnbzpodW50ZXIyLXBhc3M6d29yZA";
    for path in ["", "api/status", "api/history", "metrics"] {
        let fetch = format!("fetch('{url}{path}').then(answer => answer.text())");
        let text = page.evaluate(&fetch).await.unwrap();
        let text = text.as_str().unwrap();
        assert!(!text.is_empty());
        for secret in [PASSWORD, "hunter2", base64] {
            assert!(!text.contains(secret), "{path}");
        }
    }
    assert_quiet(&page, &url);
}

#[tokio::test]
async fn a_pull_shows_within_two_looks_and_looks_are_half_a_second_apart() {
    let runtime = FakeRuntime::start().await.unwrap();
    let shim = shim("", runtime.socket()).await;
    let (_browser, page) = page(&shim).await;
    page.wait_for("document.body.innerText.includes('No pull yet')")
        .await;
    // Counted in the page, because this process may be late to see what is there.
    let count = "looks = 0; shown = null; pauses = [];
        const ask = window.fetch, wait = window.setTimeout;
        window.fetch = (...a) => { looks++; return ask(...a); };
        window.setTimeout = (f, ms) => { pauses.push(ms); return wait(f, ms); };
        new MutationObserver(() => {
            if (shown === null && document.body.innerText.includes('quay.io/a:1')) shown = looks;
        }).observe(document.body, {childList: true, subtree: true, characterData: true}); 0";
    page.evaluate(count).await.unwrap();
    shim.client().pull("quay.io/a:1", None).await.unwrap();
    page.evaluate("looks = 0; if (shown !== null) shown = 0")
        .await
        .unwrap();
    page.wait_for("shown !== null").await;
    let shown = page.evaluate("shown").await.unwrap();
    assert!(shown.as_u64().unwrap() <= 2, "{shown}");
    page.wait_for("looks > 3").await;
    let longest = page.evaluate("Math.max(...pauses.filter(ms => ms < 2000))");
    assert_eq!(longest.await.unwrap(), 500);
}

#[tokio::test]
async fn a_pull_is_seen_while_it_goes_on() {
    let runtime = FakeRuntime::start().await.unwrap();
    runtime.hang("PullImage");
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("slow"), "team/app", "1");
    let shim = shim(&format!("address: {}", registry.url()), runtime.socket()).await;
    let (_browser, page) = page(&shim).await;
    let client = shim.client();
    let pull = tokio::spawn(async move { client.pull("ghcr.io/team/app:1", None).await });
    wait_for_row(&page, &["ghcr.io/team/app:1", "pulling from"]).await;
    page.wait_for("document.body.innerText.includes('1 pull under way')")
        .await;
    // kubelet loses its patience.
    pull.abort();
    wait_for_row(&page, &["ghcr.io/team/app:1", "cancelled by the caller"]).await;
    page.wait_for("document.body.innerText.includes('0 pulls under way')")
        .await;
}

#[tokio::test]
async fn a_daemon_that_is_restarted() {
    let runtime = FakeRuntime::start().await.unwrap();
    let mut shim = shim("", runtime.socket()).await;
    let (_browser, page) = page(&shim).await;
    shim.client().pull("quay.io/before:1", None).await.unwrap();
    wait_for_row(&page, &["quay.io/before:1"]).await;

    let url = url(&shim).await;
    shim.kill().unwrap();
    page.wait_for("document.getElementById('live').innerText.startsWith('not answering since ')")
        .await;
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    shim.write_config(&format!("metricsAddress: {address}"))
        .unwrap();
    shim.start_again().await.unwrap();
    page.wait_for("document.getElementById('live').innerText == 'live'")
        .await;
    page.wait_for("document.body.innerText.includes('No pull yet')")
        .await;
    shim.client().pull("quay.io/after:1", None).await.unwrap();
    wait_for_row(&page, &["quay.io/after:1", "origin"]).await;
    page.wait_for("document.querySelectorAll('#pulls li').length == 1")
        .await;
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let runtime = FakeRuntime::start().await.unwrap();
    let mut away = FakeRegistry::start().unwrap();
    let config = format!("address: {}\nreloadInterval: 1h", away.url());
    away.stop().await;
    let mut shim = shim(&config, runtime.socket()).await;
    let (_browser, page) = page(&shim).await;
    let shows = async |text: &str| {
        page.wait_for(&format!("document.body.innerText.includes('{text}')"))
            .await;
    };
    shim.client()
        .pull("quay.io/team/app:1", None)
        .await
        .unwrap();
    shows("circuit open, ").await;
    wait_for_row(&page, &["quay.io/team/app:1", "origin"]).await;

    shim.write_config("address: [").unwrap();
    shim.signal(Signal::HUP).unwrap();
    shows("The newest config was refused").await;
    shim.write_config(&config).unwrap();
    shim.signal(Signal::HUP).unwrap();
    page.wait_for("document.getElementById('refused').hidden")
        .await;

    runtime.stop();
    shows("The container runtime does not answer").await;
    runtime.start_again().unwrap();
    page.wait_for("document.getElementById('unreachable').hidden")
        .await;
    assert_quiet(&page, &url(&shim).await);
}
