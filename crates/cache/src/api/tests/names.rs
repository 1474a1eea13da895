use super::*;

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
