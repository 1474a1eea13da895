//! A shim, and a browser that looks at its page.

use std::path::Path;

use testkit::browser::{Browser, Page};
use testkit::shim::{Options, Shim};

/// A shim in front of a runtime, from the binary under test.
pub(crate) async fn shim(config: &str, runtime: &Path) -> Shim {
    let binary = env!("CARGO_BIN_EXE_image-cri-shim");
    Shim::start(config, Options::new(binary, runtime))
        .await
        .unwrap()
}

/// Where it shows things: `http://127.0.0.1:41234/`.
pub(crate) async fn url(shim: &Shim) -> String {
    let line = shim.wait_for_log("metrics and the page are on").await;
    let (_, url) = line.split_once("are on ").unwrap();
    url.split_whitespace().next().unwrap().to_owned()
}

/// Its page, after the first answer.
pub(crate) async fn page(shim: &Shim) -> (Browser, Page) {
    let browser = Browser::start().await.unwrap();
    let page = browser.open(&url(shim).await).await.unwrap();
    page.wait_for("document.getElementById('live').innerText == 'live'")
        .await;
    (browser, page)
}

/// Waits until a row of the list of pulls has all of these words.
pub(crate) async fn wait_for_row(page: &Page, words: &[&str]) {
    let words = serde_json::to_string(words).unwrap();
    let script = format!(
        "[...document.querySelectorAll('#pulls li')].some(row => {words}.every(word => row.innerText.includes(word)))"
    );
    page.wait_for(&script).await;
}
