//! Which request gets which answer, and for whom.

use http::{Method, StatusCode};
use telemetry::report::{Decision, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, client};

/// Sends what a browser never would, and gives all that comes back.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", world.address.port()))
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status_of(answer: &str) -> u16 {
    let status = answer.split_ascii_whitespace().nth(1);
    status
        .unwrap_or_else(|| panic!("{answer:?}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn every_route_for_get_and_head() {
    let world = World::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        (
            "/metrics",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/api/status", "application/json"),
        ("/api/history", "application/json"),
    ] {
        let got = client().get(world.url(path)).send().await.unwrap();
        assert_eq!(got.status(), StatusCode::OK, "{path}");
        assert_eq!(got.headers()["content-type"], kind, "{path}");
        let length = got.headers()["content-length"].clone();
        assert_eq!(
            length,
            got.bytes().await.unwrap().len().to_string(),
            "{path}"
        );

        let head = client().head(world.url(path)).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        assert_eq!(head.headers()["content-length"], length, "{path}");
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_says_what_is() {
    let world = World::start().await;
    for path in [
        "/index.html",
        "/metrics/",
        "/api",
        "/api/status/x",
        "//",
        "/%2e%2e/etc/passwd",
    ] {
        let got = client().get(world.url(path)).send().await.unwrap();
        assert_eq!(got.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(got.text().await.unwrap().contains("/api/status"), "{path}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let world = World::start().await;
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
    ] {
        for path in ["/", "/metrics", "/api/status"] {
            let request = client().request(method.clone(), world.url(path)).body("x");
            let got = request.send().await.unwrap();
            assert_eq!(
                got.status(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(got.headers()["allow"], "GET, HEAD");
            assert!(!got.headers().contains_key("access-control-allow-origin"));
        }
    }
}

#[tokio::test]
async fn ready_or_what_is_missing() {
    let world = World::start().await;
    let missing = "the runtime does not answer".to_owned();
    *world.daemon.missing.lock() = Some(missing.clone());
    let got = client().get(world.url("/readyz")).send().await.unwrap();
    assert_eq!(got.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.text().await.unwrap(), missing + "\n");
    let got = client().get(world.url("/healthz")).send().await.unwrap();
    assert_eq!(got.status(), StatusCode::OK, "it runs, all the same");
}

#[tokio::test]
async fn status_and_history_are_the_reports() {
    let world = World::start().await;
    let get = async |path: &str| {
        let got = client().get(world.url(path)).send().await.unwrap();
        got.bytes().await.unwrap()
    };
    let status: Status = serde_json::from_slice(&get("/api/status").await).unwrap();
    assert_eq!(status, *world.daemon.status.lock());
    let images = async |path: &str| {
        let decisions: Vec<Decision> = serde_json::from_slice(&get(path).await).unwrap();
        decisions.into_iter().map(|d| d.image).collect::<Vec<_>>()
    };
    assert_eq!(images("/api/history").await.len(), 3);
    let nginx = images("/api/history?image=docker.io%2Flibrary%2Fnginx%3A1.27").await;
    assert_eq!(nginx, ["nginx:1.27"]);
    assert_eq!(images("/api/history?image=redis").await, ["redis:7"]);
    assert!(images("/api/history?image=absent").await.is_empty());
}

#[tokio::test]
async fn headers_are_on_every_answer() {
    let world = World::start().await;
    for path in ["/", "/metrics", "/healthz", "/api/status", "/nowhere"] {
        let got = client().get(world.url(path)).send().await.unwrap();
        let header = |name: &str| got.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_loopback_listener_refuses_strange_hosts() {
    let world = World::start().await;
    let port = world.address.port();
    for (head, expected) in [
        (format!("Host: 127.0.0.1:{port}"), 200),
        ("Host: localhost".to_owned(), 200),
        (format!("Host: [::1]:{port}"), 200),
        ("Host: evil.example".to_owned(), 421),
        (format!("Host: node-1:{port}"), 421),
        ("Host: 10.1.2.3".to_owned(), 421),
        ("X: y".to_owned(), 400),
        ("Host: localhost\r\nHost: evil.example".to_owned(), 400),
    ] {
        for path in [
            "/",
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/status",
            "/api/history",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n");
            let answer = raw(&world, &request).await;
            assert_eq!(status_of(&answer), expected, "{request}\n{answer}");
            if expected == 421 {
                assert!(
                    answer.contains(&format!("http://localhost:{port}/")),
                    "{answer}"
                );
            }
        }
    }
    let old = raw(&world, "GET /metrics HTTP/1.0\r\n\r\n").await;
    assert_eq!(status_of(&old), 200);
    let whole = "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&raw(&world, whole).await), 421);
}

#[tokio::test]
async fn another_listener_lets_scrapers_call_it_what_they_like() {
    let world = World::at("0.0.0.0:0").await;
    for (host, path, expected) in [
        ("scrape.me", "/metrics", 200),
        ("scrape.me", "/healthz", 200),
        ("scrape.me", "/readyz", 200),
        ("scrape.me", "/", 421),
        ("scrape.me", "/api/status", 421),
        ("10.1.2.3:7441", "/", 200),
        ("[fd00::1]:7441", "/api/status", 200),
        ("localhost", "/api/history", 200),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw(&world, &request).await;
        assert_eq!(status_of(&answer), expected, "{request}\n{answer}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let world = World::start().await;
    for (site, expected) in [
        ("same-origin", 200),
        ("none", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ] {
        for path in ["/api/status", "/api/history"] {
            let request = client().get(world.url(path));
            let got = request.header("Sec-Fetch-Site", site).send().await.unwrap();
            assert_eq!(got.status(), expected, "{site}");
        }
        // A link to the page is fine.
        let request = client().get(world.url("/")).header("Sec-Fetch-Site", site);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}
