//! What pages of other sites can do with it, in a real browser: nothing.

use std::convert::Infallible;

use bytes::Bytes;
use hyper::service::service_fn;
use listener::{Options, Protocols, reply};
use serde_json::json;
use testkit::browser::Browser;
use tokio::net::TcpListener;

use crate::world::World;

/// Serves a page that may do whatever it likes, until the test ends; gives its port.
async fn evil_site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = service_fn(|_| async {
        let page = Bytes::from("<!doctype html><title>evil</title>");
        Ok::<_, Infallible>(reply::typed(page, "text/html"))
    });
    let options = Options::new("an evil site", Protocols::Http1);
    let forever = std::future::pending();
    tokio::spawn(listener::serve(vec![listener], options, service, forever));
    port
}

/// All the ways in which a page can have another site's content.
const ATTEMPTS: &str = r"(async base => {
  const loads = (tag, attribute, url) => new Promise(done => {
    const node = document.createElement(tag);
    node.onload = () => done(true);
    node.onerror = () => done(false);
    node[attribute] = url;
    document.body.append(node);
  });
  const reads = (options) => fetch(base + '/api/status', options).then(a => a.text()).then(t => t.length > 0, () => false);
  const frame = document.createElement('iframe');
  frame.src = base + '/';
  const framed = new Promise(done => frame.onload = () => {
    try { done(frame.contentDocument.body.innerText.length > 0); } catch { done(false); }
  });
  document.body.append(frame);
  return {
    cors: await reads({}),
    noCors: await reads({ mode: 'no-cors' }),
    metrics: await fetch(base + '/metrics').then(() => true, () => false),
    post: await fetch(base + '/api/status', { method: 'POST', body: 'x' }).then(() => true, () => false),
    script: await loads('script', 'src', base + '/api/status'),
    image: await loads('img', 'src', base + '/'),
    framed: await framed,
  };
})";

#[tokio::test]
async fn another_sites_page_reads_nothing() {
    let world = World::start().await;
    let evil = evil_site().await;
    let browser = Browser::start().await.unwrap();
    // `localhost` and 127.0.0.1 are different sites to a browser; two ports are different origins.
    for host in ["localhost", "127.0.0.1"] {
        let page = browser
            .open(&format!("http://{host}:{evil}/"))
            .await
            .unwrap();
        let attempts = format!("{ATTEMPTS}('{}')", world.url(""));
        let tried = page.evaluate(&attempts);
        let nothing = json!({
            "cors": false, "noCors": false, "metrics": false, "post": false,
            "script": false, "image": false, "framed": false,
        });
        assert_eq!(tried.await.unwrap(), nothing, "from {host}");
    }
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_ours() {
    let world = World::start().await;
    let flag = "--host-resolver-rules=MAP rebind.example 127.0.0.1";
    let browser = Browser::with_flags(&[flag]).await.unwrap();
    let port = world.address.port();
    let page = browser
        .open(&format!("http://rebind.example:{port}/"))
        .await
        .unwrap();
    let text = page.evaluate("document.body.innerText").await.unwrap();
    assert!(
        text.as_str().unwrap().contains("loopback addresses only"),
        "{text}"
    );
    for path in ["/api/status", "/metrics", "/healthz"] {
        let fetch = format!("fetch('{path}').then(a => a.status)");
        let status = page.evaluate(&fetch);
        assert_eq!(status.await.unwrap(), 421, "{path}");
    }
}

/// The policy holds, and a violation of it would not go unseen in the other tests.
#[tokio::test]
async fn what_is_not_the_pages_own_does_not_run() {
    let world = World::start().await;
    let browser = Browser::start().await.unwrap();
    let page = browser.open(&world.url("/")).await.unwrap();
    let inject = "document.body.append(Object.assign(document.createElement('script'), {text: 'pwned = 1'}))";
    page.evaluate(inject).await.unwrap();
    assert_eq!(page.evaluate("typeof pwned").await.unwrap(), "undefined");
    let outside = "fetch('http://127.0.0.2:9/').then(() => true, () => false)";
    assert_eq!(page.evaluate(outside).await.unwrap(), false);
    let seen = testkit::wait::until("complaints", || {
        std::future::ready(Some(page.complaints()).filter(|all| all.len() >= 2))
    });
    let seen = seen.await;
    assert!(
        seen.iter()
            .all(|line| line.contains("Content Security Policy")),
        "{seen:?}"
    );
    let requests = page.requests();
    assert!(
        !requests.iter().any(|url| url.contains("127.0.0.2")),
        "{requests:?}"
    );
}
