//! Pulling blobs, and checking whether they are there.

use testkit::fake_registry::Behaviour;

use crate::world::{REPOSITORY, World, absent, blob_path};

#[tokio::test]
async fn get_of_an_existing_blob_must_provide_it_with_200() {
    let (world, image) = World::with_image().await;
    for blob in &image.blobs {
        let path = blob_path(&blob.digest);
        let first = world.get(&path).await;
        assert_eq!((first.status, first.body), (200, blob.content.to_vec()));
        world.stored(&path).await;
        let hit = world.get(&path).await;
        assert_eq!((hit.status, hit.body), (200, blob.content.to_vec()));
    }
}

#[tokio::test]
async fn a_successful_answer_must_have_the_digest_of_its_body() {
    let (world, image) = World::with_image().await;
    for blob in &image.blobs {
        let path = blob_path(&blob.digest);
        for method in ["HEAD", "GET", "HEAD"] {
            let answer = world.ask(method, &path, &[]).await;
            let digest = answer.header("docker-content-digest");
            assert_eq!(digest, Some(blob.digest.as_str()), "{method}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_not_found_must_be_404() {
    let (world, _) = World::with_image().await;
    let path = blob_path(&absent());
    let answer = world.get(&path).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "BLOB_UNKNOWN")
    );
    assert_eq!(world.head(&path).await.status, 404);
}

#[tokio::test]
async fn a_digest_that_is_none_must_be_400() {
    let (world, _) = World::with_image().await;
    for wrong in ["sha256:12", "sha256", "md5:00", "sha256:XYZ"] {
        let answer = world.get(&blob_path(wrong)).await;
        let found = (answer.status, answer.code());
        assert_eq!(found, (400, "DIGEST_INVALID".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn head_of_an_existing_blob_must_be_200() {
    let (world, image) = World::with_image().await;
    for blob in &image.blobs {
        assert_eq!(world.head(&blob_path(&blob.digest)).await.status, 200);
    }
}

#[tokio::test]
async fn head_of_a_blob_must_have_its_size_in_content_length() {
    let (world, image) = World::with_image().await;
    for blob in &image.blobs {
        let path = blob_path(&blob.digest);
        let size = blob.content.len().to_string();
        let answer = world.head(&path).await;
        assert_eq!(answer.header("content-length"), Some(size.as_str()));
        world.stored(&path).await;
        let answer = world.head(&path).await;
        assert_eq!(answer.header("content-length"), Some(size.as_str()));
    }
}

#[tokio::test]
async fn head_must_work_where_the_registry_knows_only_get() {
    let (world, image) = World::with_image().await;
    let behaviour = Behaviour::HeadRefused;
    world.registry.behave_for_blobs(REPOSITORY, behaviour);
    for blob in &image.blobs {
        let answer = world.head(&blob_path(&blob.digest)).await;
        assert_eq!(answer.status, 200);
        let size = blob.content.len().to_string();
        assert_eq!(answer.header("content-length"), Some(size.as_str()));
    }
}

#[tokio::test]
async fn a_blob_must_never_be_encoded() {
    let (world, image) = World::with_image().await;
    let accept = [("Accept-Encoding", "gzip, br, zstd")];
    for blob in &image.blobs {
        let answer = world.ask("GET", &blob_path(&blob.digest), &accept).await;
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.body, blob.content);
    }
    let asked = world.registry.requests();
    for request in asked {
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
}
