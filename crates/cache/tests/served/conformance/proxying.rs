//! Proxying: the registry that a request is about, by `ns`.

use testkit::images::Image;

use crate::world::{REPOSITORY, World};

#[tokio::test]
async fn an_ns_that_was_used_should_be_in_the_answer() {
    let (world, image) = World::with_image().await;
    for (path, status) in [
        ("manifests/1".to_owned(), 200),
        (format!("manifests/{}", image.manifest_digest), 200),
        (format!("blobs/{}", image.blobs[0].digest), 200),
        ("tags/list".to_owned(), 200),
        (format!("referrers/{}", image.manifest_digest), 200),
        ("manifests/2".to_owned(), 404),
    ] {
        let path = format!("/v2/{REPOSITORY}/{path}?ns=images.test");
        let answer = world.get(&path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.header("oci-namespace"),
            Some("images.test"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_an_ns_none_should_be_in_the_answer() {
    let (world, _) = World::with_image().await;
    let path = format!("/v2/images.test/{REPOSITORY}/manifests/1");
    // Its own name says nothing of where an image is.
    let own = format!("{path}?ns={}", world.address);
    for path in [path, own] {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("oci-namespace"), None);
    }
}

#[tokio::test]
async fn an_ns_must_tell_repositories_of_one_name_apart() {
    let world = World::start().await;
    let image = Image::new("of one host");
    world.registry.add(&image, "library/x", "1");
    for (path, status) in [
        ("/v2/library/x/manifests/1?ns=docker.io", 200),
        ("/v2/library/x/manifests/1?ns=images.test", 200),
        ("/v2/library/x/manifests/1?ns=not%20a%20host", 400),
    ] {
        assert_eq!(world.get(path).await.status, status, "{path}");
    }
}
