//! The fake registry is real enough for containerd, and misbehaves as told.

use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, BodyStream, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use testkit::certs::Ca;
use testkit::containerd::Containerd;
use testkit::cri_client::kubelet_auth;
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::{Format, Image};

type Http = Client<HttpConnector, Empty<bytes::Bytes>>;

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn ask(
    http: &Http,
    method: Method,
    url: &str,
) -> Result<http::Response<hyper::body::Incoming>, hyper_util::client::legacy::Error> {
    let request = http::Request::builder().method(method).uri(url);
    http.request(request.body(Empty::new()).unwrap()).await
}

async fn status(http: &Http, method: Method, url: &str) -> u16 {
    ask(http, method, url).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn containerd_pulls_from_it_with_basic_and_with_tokens() {
    let containerd = Containerd::start().await.unwrap();
    let registry = FakeRegistry::start().unwrap();
    containerd.allow_http(&registry.host()).unwrap();
    let cri = containerd.client();
    let name = format!("{}/team/app:1", registry.host());
    assert!(
        cri.pull(&name, None)
            .await
            .unwrap_err()
            .message()
            .contains("not found")
    );

    let image = Image::index("fake", Format::Oci);
    registry.add(&image, "team/app", "1");
    assert_eq!(cri.pull(&name, None).await.unwrap(), image.id());
    cri.remove(&name).await.unwrap();

    let auth = || Some(kubelet_auth("u", "p"));
    registry.require_basic("u", "p");
    cri.pull(&name, None).await.unwrap_err();
    assert_eq!(cri.pull(&name, auth()).await.unwrap(), image.id());
    assert!(registry.recording().count(|r| r.has_basic("u", "p")) > 0);
    cri.remove(&name).await.unwrap();

    let tokens = TokenService::start(TokenOptions {
        credentials: Some(("u".into(), "p".into())),
        ..TokenOptions::default()
    })
    .unwrap();
    registry.require_token(&tokens);
    cri.pull(&name, None).await.unwrap_err();
    cri.pull(&name, Some(kubelet_auth("u", "wrong")))
        .await
        .unwrap_err();
    assert_eq!(cri.pull(&name, auth()).await.unwrap(), image.id());
    assert!(tokens.recording().count(|r| r.status == Some(200)) > 0);
    cri.remove(&name).await.unwrap();

    tokens.stop().await;
    cri.pull(&name, auth()).await.unwrap_err();
    tokens.start_again().await.unwrap();
    cri.pull(&name, auth()).await.unwrap();
}

#[tokio::test]
async fn containerd_pulls_from_it_over_tls() {
    let ca = Ca::new().unwrap();
    let containerd = Containerd::start().await.unwrap();
    let registry = FakeRegistry::start_tls(&ca.issue(&["127.0.0.1"]).unwrap()).unwrap();
    containerd.allow_ca(&registry.host(), &ca.pem()).unwrap();
    let image = Image::new("fake tls");
    registry.add(&image, "app", "1");
    let name = format!("{}/app:1", registry.host());
    assert_eq!(
        containerd.client().pull(&name, None).await.unwrap(),
        image.id()
    );
    assert_eq!(registry.url(), format!("https://{}", registry.host()));
}

#[tokio::test]
async fn it_answers_as_it_was_told() {
    let http = http();
    let registry = FakeRegistry::start().unwrap();
    let image = Image::new("a");
    registry.add(&image, "app", "1");
    let url = format!("{}/v2/app/manifests/1", registry.url());
    let digest = format!(
        "{}/v2/app/manifests/{}",
        registry.url(),
        image.manifest_digest
    );
    let (get, head) = (Method::GET, Method::HEAD);

    let good = ask(&http, head.clone(), &url).await.unwrap();
    assert_eq!(good.status(), StatusCode::OK);
    assert_eq!(
        good.headers()["docker-content-digest"],
        image.manifest_digest.as_str()
    );
    assert_eq!(good.headers()["content-type"], image.media_type);
    assert_eq!(
        good.headers()["content-length"],
        image.manifest.len().to_string().as_str()
    );
    assert_eq!(status(&http, get.clone(), &digest).await, 200);
    assert_eq!(
        status(&http, get.clone(), &format!("{}/v2/", registry.url())).await,
        200
    );
    assert_eq!(status(&http, Method::PUT, &url).await, 405);

    for (behaviour, for_head, for_get) in [
        (Behaviour::Status(StatusCode::FORBIDDEN), 403, 403),
        (Behaviour::Html(StatusCode::NOT_FOUND), 404, 404),
        (Behaviour::HeadRefused, 405, 200),
        (Behaviour::CaptivePortal, 200, 200),
        (Behaviour::Challenge("Bearer x".into()), 401, 401),
        (Behaviour::RateLimited { retry_after: None }, 429, 429),
        (Behaviour::RedirectLoop, 307, 307),
        (Behaviour::Slow(Duration::from_millis(1)), 200, 200),
    ] {
        registry.behave_for_tag("app", "1", behaviour.clone());
        let got = (
            status(&http, head.clone(), &url).await,
            status(&http, get.clone(), &url).await,
        );
        assert_eq!(got, (for_head, for_get), "{behaviour:?}");
        // Another reference of the repository is served well meanwhile.
        assert_eq!(status(&http, head.clone(), &digest).await, 200);
    }

    let retry_after = Some("7".into());
    registry.behave(Behaviour::RateLimited { retry_after });
    registry.behave_well();
    assert_eq!(status(&http, get.clone(), &url).await, 200);
    registry.behave_for(
        "app",
        Behaviour::RateLimited {
            retry_after: Some("7".into()),
        },
    );
    assert_eq!(
        ask(&http, get.clone(), &url).await.unwrap().headers()["retry-after"],
        "7"
    );
    registry.behave_for("app", Behaviour::Redirect("http://127.0.0.1:9/x".into()));
    let location = ask(&http, get.clone(), &url).await.unwrap().headers()["location"].clone();
    assert_eq!(location, "http://127.0.0.1:9/x");
    registry.behave_for("app", Behaviour::RedirectLoop);
    let location = ask(&http, get.clone(), &url).await.unwrap().headers()["location"].clone();
    assert_eq!(location, "/v2/app/manifests/1");

    registry.behave_for("app", Behaviour::WithoutDigest);
    let response = ask(&http, head.clone(), &url).await.unwrap();
    assert!(!response.headers().contains_key("docker-content-digest"));

    registry.behave_for("app", Behaviour::Truncated);
    let body = ask(&http, get.clone(), &url).await.unwrap().into_body();
    body.collect().await.unwrap_err();
    registry.behave_for("app", Behaviour::Endless);
    let mut body = BodyStream::new(ask(&http, get.clone(), &url).await.unwrap().into_body());
    let mut read = 0;
    while read < 4 << 20 {
        read += body
            .next()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    drop(body);
    registry.behave_for("app", Behaviour::HangUp);
    ask(&http, get.clone(), &url).await.unwrap_err();

    registry.behave_well();
    registry.behave_for_blobs("app", Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let blob = format!("{}/v2/app/blobs/{}", registry.url(), image.config_digest);
    assert_eq!(status(&http, get.clone(), &blob).await, 500);
    assert_eq!(status(&http, get.clone(), &url).await, 200);
    registry.behave_well();
    assert_eq!(status(&http, get.clone(), &blob).await, 200);
    registry.remove("app", "1");
    assert_eq!(status(&http, get, &url).await, 404);
}

#[tokio::test]
async fn it_goes_dark_and_comes_back_on_the_same_port() {
    let http = http();
    let mut registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("a"), "app", "1");
    let url = format!("{}/v2/app/manifests/1", registry.url());
    assert_eq!(status(&http, Method::GET, &url).await, 200);

    registry.stop().await;
    // A client without an old connection, whose end it would notice first.
    let fresh = self::http();
    let refused = ask(&fresh, Method::GET, &url).await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    registry.start_again().unwrap();
    let http = self::http();
    assert_eq!(status(&http, Method::GET, &url).await, 200);

    registry.recording().clear();
    registry.set_black_hole(true);
    // On the connection that there is, and on a new one.
    for http in [&http, &self::http()] {
        let answer = tokio::time::timeout(Duration::from_millis(100), ask(http, Method::GET, &url));
        assert!(answer.await.is_err());
    }
    let seen = registry.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].status, None);
    registry.set_black_hole(false);
    assert_eq!(status(&self::http(), Method::GET, &url).await, 200);
}

#[tokio::test]
async fn tokens_open_what_they_were_asked_for_until_they_are_revoked() {
    let http = http();
    let registry = FakeRegistry::start().unwrap();
    registry.add(&Image::new("a"), "app", "1");
    let options = TokenOptions {
        field: "access_token",
        expires_in: None,
        ..TokenOptions::default()
    };
    let tokens = TokenService::start(options).unwrap();
    registry.require_token(&tokens);
    let manifest = format!("{}/v2/app/manifests/1", registry.url());
    let refused = ask(&http, Method::GET, &manifest).await.unwrap();
    let challenge = refused.headers()["www-authenticate"]
        .to_str()
        .unwrap()
        .to_owned();
    let wanted = format!(
        r#"Bearer realm="{}",service="fake-registry",scope="repository:app:pull""#,
        tokens.realm()
    );
    assert_eq!(challenge, wanted);

    let url = format!(
        "{}?service=fake-registry&scope=repository:app:pull",
        tokens.realm()
    );
    let body = ask(&http, Method::GET, &url).await.unwrap().into_body();
    let body: serde_json::Value =
        serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body, serde_json::json!({"access_token": "fake-token-1"}));

    let with_token = async |path: &str| {
        let request = http::Request::get(format!("{}{path}", registry.url()))
            .header("authorization", "Bearer fake-token-1")
            .body(Empty::new())
            .unwrap();
        let response = http.request(request).await.unwrap();
        let challenge = response.headers().get("www-authenticate");
        challenge.map(|challenge| challenge.to_str().unwrap().to_owned())
    };
    assert_eq!(with_token("/v2/app/manifests/1").await, None);
    let other = with_token("/v2/other/manifests/1").await.unwrap();
    assert!(other.contains("insufficient_scope"), "{other}");
    tokens.revoke();
    let revoked = with_token("/v2/app/manifests/1").await.unwrap();
    assert!(revoked.contains("invalid_token"), "{revoked}");

    tokens.behave(Behaviour::CaptivePortal);
    let garbage = ask(&http, Method::GET, &url).await.unwrap();
    assert_eq!(
        garbage.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    assert_eq!(tokens.recording().all().len(), 2);
}
