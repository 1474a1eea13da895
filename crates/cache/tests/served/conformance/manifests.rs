//! Pulling manifests, and checking whether they are there.

use bytes::Bytes;
use http::StatusCode;
use testkit::fake_registry::Behaviour;
use testkit::images::{Format, Image};

use crate::world::{CODES, NAME, REPOSITORY, World, absent, manifest_path};

#[tokio::test]
async fn get_of_an_existing_manifest_must_provide_it_with_200() {
    let (world, image) = World::with_image().await;
    for reference in ["1", image.manifest_digest.as_str()] {
        let answer = world.get(&manifest_path(reference)).await;
        assert_eq!(answer.status, 200, "{reference}");
        assert_eq!(answer.body, image.manifest, "{reference}");
    }
}

#[tokio::test]
async fn a_successful_answer_must_have_the_manifests_digest() {
    let (world, image) = World::with_image().await;
    for reference in ["1", image.manifest_digest.as_str()] {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, &manifest_path(reference), &[]).await;
            let digest = answer.header("docker-content-digest");
            assert_eq!(digest, Some(image.manifest_digest.as_str()), "{method}");
        }
    }
}

#[tokio::test]
async fn the_digest_header_must_match_the_body_where_the_registry_names_none() {
    let (world, image) = World::with_image().await;
    world.registry.behave(Behaviour::WithoutDigest);
    let answer = world.get(&manifest_path("1")).await;
    assert_eq!(answer.status, 200);
    let digest = answer.header("docker-content-digest");
    assert_eq!(digest, Some(image.manifest_digest.as_str()));
}

#[tokio::test]
async fn the_content_type_should_be_the_one_that_was_pushed() {
    let world = World::start().await;
    let images = [
        Image::new("oci"),
        Image::docker("docker"),
        Image::index("oci index", Format::Oci),
        Image::index("docker list", Format::Docker),
    ];
    for (number, image) in images.iter().enumerate() {
        let tag = format!("t{number}");
        world.registry.add(image, REPOSITORY, &tag);
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, &manifest_path(&tag), &[]).await;
            assert_eq!(answer.header("content-type"), Some(image.media_type));
        }
    }
}

#[tokio::test]
async fn the_content_type_should_not_have_parameters() {
    let (world, image) = World::with_image().await;
    world.registry.behave(Behaviour::Answer {
        status: StatusCode::OK,
        headers: vec![(
            "content-type",
            format!("{}; charset=utf-8", image.media_type),
        )],
        body: image.manifest.clone(),
    });
    let answer = world.get(&manifest_path(&image.manifest_digest)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(image.media_type));
}

#[tokio::test]
async fn a_manifest_that_is_not_found_must_be_404() {
    let (world, _) = World::with_image().await;
    for reference in ["2", absent().as_str()] {
        let answer = world.get(&manifest_path(reference)).await;
        assert_eq!(answer.status, 404, "{reference}");
        assert_eq!(answer.code(), "MANIFEST_UNKNOWN");
        assert_eq!(world.head(&manifest_path(reference)).await.status, 404);
    }
    let elsewhere = "/v2/images.test/team/nothing/manifests/1";
    assert_eq!(world.get(elsewhere).await.status, 404);
}

#[tokio::test]
async fn a_reference_must_be_a_tag_or_a_digest() {
    let (world, _) = World::with_image().await;
    let before = world.registry.requests().len();
    for (reference, status) in [
        // The conformance suite of 1.1 asks for this one, and wants 404.
        (".INVALID_MANIFEST_NAME", 404),
        ("-x", 404),
        ("a%2Bb", 404),
        ("sha256:totallywrong", 400),
        ("sha256:", 400),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", 400),
    ] {
        let answer = world.get(&manifest_path(reference)).await;
        assert_eq!(answer.status, status, "{reference}");
        assert!(CODES.contains(&answer.code().as_str()), "{reference}");
    }
    // Nothing of that was asked of anybody.
    assert_eq!(world.registry.requests().len(), before);
}

#[tokio::test]
async fn a_tag_must_have_at_most_128_characters() {
    let (world, image) = World::with_image().await;
    for (length, status) in [(128, 200), (129, 404)] {
        let tag = "T".repeat(length);
        world.registry.add(&image, REPOSITORY, &tag);
        let answer = world.get(&manifest_path(&tag)).await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test]
async fn a_name_must_match_the_regular_expression() {
    let (world, image) = World::with_image().await;
    for good in ["a", "a.b/c-d", "a__b/c--d", "a_b/0/1/2/3"] {
        world.registry.add(&image, good, "1");
        let path = format!("/v2/images.test/{good}/manifests/1");
        assert_eq!(world.get(&path).await.status, 200, "{good}");
    }
    for wrong in ["A", "a//b", "a/-b", "a..b", "a/b.", "a%20b"] {
        let path = format!("/v2/images.test/{wrong}/manifests/1");
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert_eq!(answer.code(), "NAME_INVALID", "{wrong}");
    }
}

#[tokio::test]
async fn head_of_an_existing_manifest_must_be_200() {
    let (world, image) = World::with_image().await;
    for reference in ["1", image.manifest_digest.as_str()] {
        assert_eq!(world.head(&manifest_path(reference)).await.status, 200);
    }
}

#[tokio::test]
async fn head_of_a_manifest_must_have_its_size_in_content_length() {
    let (world, image) = World::with_image().await;
    let expected = image.manifest.len().to_string();
    // Before it is stored, and after.
    for _ in 0..2 {
        for reference in ["1", image.manifest_digest.as_str()] {
            let answer = world.head(&manifest_path(reference)).await;
            assert_eq!(answer.header("content-length"), Some(expected.as_str()));
        }
    }
}

#[tokio::test]
async fn content_may_be_pulled_in_any_order_and_by_sha512() {
    let (world, image) = World::with_image().await;
    let digest = sha512(&image.manifest);
    world.registry.behave_for_tag(
        REPOSITORY,
        &digest,
        Behaviour::Answer {
            status: StatusCode::OK,
            headers: vec![("content-type", image.media_type.to_owned())],
            body: image.manifest.clone(),
        },
    );
    // A blob before any manifest.
    for blob in &image.blobs {
        let answer = world.get(&crate::world::blob_path(&blob.digest)).await;
        assert_eq!(answer.status, 200);
    }
    let answer = world.get(&manifest_path(&digest)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(digest.as_str())
    );
}

#[tokio::test]
async fn conditions_should_follow_http() {
    let (world, image) = World::with_image().await;
    let path = manifest_path("1");
    let etag = world.get(&path).await.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", image.manifest_digest));
    for (condition, status) in [
        (etag.as_str(), 304),
        ("*", 304),
        ("\"other\"", 200),
        (&format!("\"other\", W/{etag}"), 304),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = world
                .ask(method, &path, &[("If-None-Match", condition)])
                .await;
            assert_eq!(answer.status, status, "{method} {condition}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()), "{condition}");
        }
    }
}

#[tokio::test]
async fn what_is_no_manifest_is_no_answer() {
    let (world, image) = World::with_image().await;
    world.registry.behave(Behaviour::Answer {
        status: StatusCode::OK,
        headers: vec![("content-type", image.media_type.to_owned())],
        body: Bytes::from_static(b"{\"schemaVersion\": 2}"),
    });
    let path = format!("/v2/{NAME}/manifests/{}", image.manifest_digest);
    assert_eq!(world.get(&path).await.status, 502);
}

fn sha512(content: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha512::digest(content);
    let hex = hash.iter().map(|byte| format!("{byte:02x}"));
    format!("sha512:{}", hex.collect::<String>())
}
