use super::*;

#[tokio::test]
async fn errors_say_what_is_so_and_who_was_asked() {
    let world = World::new();
    place(&world, "a", 100);
    place(&world, "b", 50);
    let failures = [
        (Failure::Silent("x".into()), 503),
        (Failure::Wrong("a page".into()), 502),
        (Failure::RateLimited(Some(Duration::from_secs(7))), 429),
        (Failure::Refused("401".into()), 401),
        (Failure::NotFound, 404),
        (Failure::Circle, 404),
    ];
    for (number, (failure, status)) in failures.into_iter().enumerate() {
        world
            .upstream
            .with("b", |fake| fake.failure = Some(failure));
        let answer = world
            .get(&format!("/v2/quay.io/x{number}/manifests/1"))
            .await;
        assert_eq!(answer.status, status);
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(text.contains("b "), "{text}");
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "7");
        }
        if status == 401 {
            assert!(answer.header("www-authenticate").starts_with("Basic "));
        }
    }
    let circle = [("via", "1.1 other, 1.1 this-cache")];
    let answer = world
        .ask(Method::GET, "/v2/quay.io/x/manifests/1", &circle)
        .await;
    assert_eq!(answer.status, 508);
    let mut request = Request::get("/v2/").header(HOST, "evil.example:7439");
    request = request.header("x", "y");
    let Ok(response) = world.api.handle(request.body(()).unwrap()).await;
    assert_eq!(response.status(), 421);
}

#[tokio::test]
async fn what_a_deeper_cache_says_is_passed_on() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    let via = [("via", "1.1 deeper")];
    let answer = world
        .ask(Method::GET, "/v2/quay.io/x/manifests/1", &via)
        .await;
    assert_eq!(answer.status, 200);
    let via = world.upstream.read("a", |fake| fake.askers[0].via.to_vec());
    assert_eq!(via, ["deeper"]);
}

#[tokio::test]
async fn what_was_asked_for_in_a_circle_is_not_gone_for_who_comes_by_another_way() {
    let world = World::new();
    place(&world, "a", 100);
    let pushed = push(&world, "a", "1", b"layer");
    let paths = [
        format!("/v2/quay.io/x/blobs/{}", pushed.layer),
        format!("/v2/quay.io/x/manifests/{}", pushed.manifest),
        "/v2/quay.io/x/manifests/1".to_owned(),
    ];
    let in_a_circle = |is| {
        world.upstream.with("a", |fake| fake.failure = is);
    };
    for path in paths {
        in_a_circle(Some(Failure::Circle));
        assert_eq!(world.get(&path).await.status, 404, "{path}");
        in_a_circle(None);
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
}
