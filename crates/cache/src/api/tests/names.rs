use super::*;
use crate::manifest::OCI_INDEX;

#[tokio::test]
async fn the_specification_s_pull_category() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", b"layer");
    let root = world.get("/v2/").await;
    assert_eq!((root.status, root.body.as_slice()), (200, b"{}".as_slice()));
    for reference in ["1", image.manifest.as_str()] {
        let path = format!("/v2/quay.io/x/manifests/{reference}");
        for method in [Method::HEAD, Method::GET] {
            let answer = world.ask(method.clone(), &path, &[]).await;
            assert_eq!(answer.status, 200, "{method} {reference}");
            assert_eq!(answer.header("content-type"), OCI_MANIFEST);
            assert_eq!(
                answer.header("docker-content-digest"),
                image.manifest.as_str()
            );
            assert_eq!(answer.header("etag"), format!("\"{}\"", image.manifest));
            assert!(answer.header("content-encoding").is_empty());
            let length: usize = answer.header("content-length").parse().unwrap();
            match method {
                Method::HEAD => assert!(answer.body.is_empty() && length > 0),
                _ => assert_eq!(answer.body.len(), length),
            }
        }
    }
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let head = world.head(&path).await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    let blob = world.get(&path).await;
    assert_eq!(blob.body, b"layer");
    assert_eq!(blob.header("docker-content-digest"), image.layer.as_str());
    assert_eq!(blob.header("content-type"), "application/octet-stream");
    let again = world
        .ask(
            Method::GET,
            &path,
            &[("if-none-match", blob.header("etag"))],
        )
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    for (path, status, code) in [
        ("/v2/quay.io/x/manifests/2", 404, "MANIFEST_UNKNOWN"),
        (
            &format!("/v2/quay.io/x/blobs/{}", Digest::of(b"no")),
            404,
            "BLOB_UNKNOWN",
        ),
        ("/v2/quay.io/x/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/quay.io/X/manifests/1", 400, "NAME_INVALID"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let put = world
        .ask(Method::PUT, "/v2/quay.io/x/manifests/1", &[])
        .await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD"));
    let tags = world.get("/v2/quay.io/x/tags/list").await;
    let tags: serde_json::Value = serde_json::from_slice(&tags.body).unwrap();
    assert_eq!(tags, json!({"name": "x", "tags": ["1"]}));
    // No registry has any: an empty index, never a 404.
    let referrers = world
        .get(&format!("/v2/quay.io/x/referrers/{}", image.manifest))
        .await;
    assert_eq!(referrers.status, 200);
    assert_eq!(referrers.header("content-type"), OCI_INDEX);
    let index: serde_json::Value = serde_json::from_slice(&referrers.body).unwrap();
    assert_eq!(index["manifests"], json!([]));
}

#[tokio::test]
async fn one_image_by_every_name() {
    let world = World::new();
    place(&world, "a", 100);
    push(&world, "a", "1", b"layer");
    for path in [
        "/v2/library/nginx/manifests/1?ns=docker.io",
        "/v2/docker.io/nginx/manifests/1",
        "/v2/docker.io/library/nginx/manifests/1",
        "/v2/nginx/manifests/1",
        "/v2/docker.io/nginx/manifests/1?ns=localhost:7439",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let tags = world.cache.storage().index().all_tags().unwrap();
    let names: Vec<String> = tags.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["docker.io/library/nginx:1"]);
}
