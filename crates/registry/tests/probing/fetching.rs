//! Manifests with their bodies, blobs as they arrive, and lists.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use policy::{Credentials, Endpoint};
use registry::{
    Blob, Cause, Client, ExchangeError, Failure, FetchOptions, MAX_MANIFEST, PageRequest, Registry,
    Repository, referrers_tag,
};
use testkit::docker_registry::DockerRegistry;
use testkit::fake_registry::{Behaviour, TokenOptions, TokenService};
use testkit::images::{Image, digest};

use crate::setup::{REPOSITORY, client, registry};

fn repository_with(client: &Client, address: &str, options: FetchOptions) -> Repository {
    let registry = Registry::anonymous(Endpoint::parse(address).unwrap().0);
    client.repository(registry, REPOSITORY, options)
}

fn repository(address: &str) -> Repository {
    repository_with(&client(), address, FetchOptions::default())
}

async fn whole(mut blob: Blob) -> Result<Bytes, ExchangeError> {
    let mut body = Vec::new();
    while let Some(chunk) = blob.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

fn answer(headers: &[(&'static str, &str)], body: &[u8]) -> Behaviour {
    Behaviour::Answer {
        status: StatusCode::OK,
        headers: headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
        body: Bytes::copy_from_slice(body),
    }
}

#[tokio::test]
async fn a_real_registry_gives_manifests_blobs_and_tags() {
    let registry = DockerRegistry::plain().await.unwrap();
    let image = Image::sized("app", 3 << 20);
    for tag in ["1", "2", "3"] {
        registry.push(&image, REPOSITORY, tag).await.unwrap();
    }
    let repository = repository(&registry.url());
    for reference in ["1", &image.manifest_digest] {
        let manifest = repository.manifest(reference).await.unwrap();
        assert_eq!(manifest.body, image.manifest);
        assert_eq!(manifest.digest, image.manifest_digest);
        assert_eq!(manifest.media_type, image.media_type);
        let head = repository.head_manifest(reference).await.unwrap();
        assert_eq!(head.digest.as_ref(), Some(&image.manifest_digest));
        assert_eq!(head.size, Some(image.manifest.len() as u64));
    }
    let missing = repository.manifest("4").await.unwrap_err();
    assert_eq!(
        (missing.failure, missing.status),
        (Failure::NotFound, Some(404))
    );

    let layer = image
        .blobs
        .iter()
        .max_by_key(|blob| blob.content.len())
        .unwrap();
    let size = layer.content.len() as u64;
    let head = repository.head_blob(&layer.digest).await.unwrap();
    assert_eq!(head.size, Some(size));
    let blob = repository.blob(&layer.digest, 0, None).await.unwrap();
    assert_eq!(
        (blob.start, blob.size, blob.length),
        (0, Some(size), Some(size))
    );
    assert_eq!(blob.named_digest.as_ref(), Some(&layer.digest));
    assert_eq!(whole(blob).await.unwrap(), layer.content);
    for (first, last) in [(1000, None), (0, Some(9)), (5, Some(5)), (size - 1, None)] {
        let blob = repository.blob(&layer.digest, first, last).await.unwrap();
        assert_eq!((blob.start, blob.size), (first, Some(size)));
        let end = last.map_or(size, |last| last + 1);
        let want = layer.content.slice(first as usize..end as usize);
        assert_eq!(
            (blob.length, whole(blob).await.unwrap()),
            (Some(end - first), want)
        );
    }
    let beyond = repository
        .blob(&layer.digest, size, None)
        .await
        .unwrap_err();
    assert_eq!(beyond.status, Some(416));

    // This one knows no pages and gives all of them.
    let page = repository
        .tags(&PageRequest::from_query("n=2"))
        .await
        .unwrap();
    let tags = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(tags.contains("\"1\"") && tags.contains("\"3\""), "{tags}");
    assert_eq!(page.next, None);

    // It has no referrers API: what there is stands under a tag.
    let none = repository
        .referrers(&image.manifest_digest, &PageRequest::default())
        .await
        .unwrap_err();
    assert_eq!(none.failure, Failure::NotFound);
    assert_eq!(referrers_tag("sha256:ab"), "sha256-ab");
    let long = format!("sha512:{}", "a".repeat(128));
    assert_eq!(referrers_tag(&long), format!("sha512-{}", "a".repeat(64)));
    assert_eq!(referrers_tag("a+b:C=d"), "a-b-C-d");
}

#[tokio::test]
async fn referrers_come_as_they_are() {
    let (registry, image) = registry();
    let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    registry.behave(answer(
        &[
            ("content-type", "application/vnd.oci.image.index.v1+json"),
            ("oci-filters-applied", "artifactType"),
            ("link", "</v2/x?page=2>; rel=\"next\""),
            ("warning", "299 - \"stale\""),
        ],
        index,
    ));
    let request = PageRequest::from_query("artifactType=a/b");
    let page = repository(&registry.url())
        .referrers(&image.manifest_digest, &request)
        .await
        .unwrap();
    assert_eq!(page.body.as_ref(), index);
    assert_eq!(page.next, Some(PageRequest::from_query("page=2")));
    assert_eq!(page.filters_applied.unwrap(), "artifactType");
    assert_eq!(page.warnings, ["299 - \"stale\""]);
    assert_eq!(
        registry.requests()[0].path,
        format!(
            "/v2/{REPOSITORY}/referrers/{}?artifactType=a%2Fb",
            image.manifest_digest
        )
    );
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let (registry, _) = registry();
    let link = ("link", "</v2/elsewhere/tags/list?last=b&n=2>; rel=\"next\"");
    registry.behave(answer(&[link], br#"{"name":"team/app","tags":["a","b"]}"#));
    let repository = repository(&registry.url());
    let first = repository
        .tags(&PageRequest::from_query("n=2"))
        .await
        .unwrap();
    registry.behave(answer(&[], br#"{"name":"team/app","tags":["c"]}"#));
    let second = repository.tags(&first.next.unwrap()).await.unwrap();
    assert_eq!(second.next, None);
    let asked = registry.requests();
    let paths: Vec<&str> = asked.iter().map(|request| request.path.as_str()).collect();
    let list = format!("/v2/{REPOSITORY}/tags/list");
    // The next page is of this repository, whatever the link says.
    assert_eq!(paths, [format!("{list}?n=2"), format!("{list}?last=b&n=2")]);
    registry.behave(Behaviour::CaptivePortal);
    let page = repository.tags(&PageRequest::default()).await;
    assert_eq!(page.unwrap_err().cause(), Some(Cause::Protocol));
}

#[tokio::test]
async fn every_request_says_who_asks_for_whom_and_that_no_encoding_is_wanted() {
    let (store, image) = registry();
    let (registry, _) = crate::setup::registry();
    registry.behave_for_blobs(
        REPOSITORY,
        Behaviour::Redirect(format!(
            "{}/v2/x/blobs/{}",
            store.url(),
            image.config_digest
        )),
    );
    let options = FetchOptions {
        via: Some(HeaderValue::from_static("1.1 first, 1.1 us")),
        ..FetchOptions::default()
    };
    let repository = repository_with(&client(), &registry.url(), options);
    repository.manifest("1").await.unwrap();
    whole(
        repository
            .blob(&image.config_digest, 0, None)
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    let all = [registry.requests(), store.requests()].concat();
    assert_eq!(all.len(), 3);
    for request in all {
        assert_eq!(request.headers["via"], "1.1 first, 1.1 us");
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
}

/// Some caches and proxies compress unasked. The bytes are not those that were asked for, their count is not
/// the blob's size, and it is too late to find that out when they have been handed on.
#[tokio::test]
async fn an_answer_that_is_encoded_all_the_same_is_none() {
    let (registry, image) = registry();
    let content = &image.blobs[0].content;
    let repository = repository(&registry.url());
    for (coding, fits) in [("identity", true), ("gzip", false), ("zstd, br", false)] {
        let headers = [("content-encoding", coding)];
        registry.behave(answer(&headers, content));
        let digest = &image.blobs[0].digest;
        let blob = repository.blob(digest, 0, None).await.map(|_| ());
        let head = repository.head_blob(digest).await.map(|_| ());
        registry.behave(answer(&headers, &image.manifest));
        let manifest = repository.manifest("1").await.map(|_| ());
        for outcome in [blob, head, manifest] {
            assert_eq!(outcome.is_ok(), fits, "{coding}: {outcome:?}");
            let Err(error) = outcome else { continue };
            assert_eq!(error.cause(), Some(Cause::Protocol));
            assert!(error.detail.contains(coding), "{}", error.detail);
        }
    }
}

#[tokio::test]
async fn a_storage_host_sees_the_range_and_not_the_credentials() {
    let (store, image) = registry();
    let (registry, _) = crate::setup::registry();
    registry.require_basic("u", "hunter2");
    registry.behave_for_blobs(
        REPOSITORY,
        Behaviour::Redirect(format!(
            "{}/v2/x/blobs/{}",
            store.url(),
            image.config_digest
        )),
    );
    let mut home = Registry::anonymous(Endpoint::parse(&registry.url()).unwrap().0);
    home.credentials = Some(Credentials::new("u", "hunter2"));
    let repository = client().repository(home, REPOSITORY, FetchOptions::default());
    let blob = repository
        .blob(&image.config_digest, 7, None)
        .await
        .unwrap();
    // The fake store knows no ranges: everything comes, and the answer says so.
    assert_eq!((blob.start, blob.from.as_str()), (0, store.url().as_str()));
    let config = image.blobs.iter().find(|b| b.digest == image.config_digest);
    assert_eq!(whole(blob).await.unwrap(), config.unwrap().content);
    let [asked] = store.requests().try_into().unwrap();
    assert_eq!(asked.headers["range"], "bytes=7-");
    assert_eq!(asked.authorization(), None);

    // A storage host that asks for a password gets none.
    store.require_basic("u", "hunter2");
    let error = repository
        .blob(&image.config_digest, 0, None)
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::Unauthorized);
    assert!(store.requests().iter().all(|r| r.authorization().is_none()));
}

#[tokio::test]
async fn wrong_manifests_are_refused() {
    let (registry, image) = registry();
    let other = Image::new("other");
    let repository = repository(&registry.url());
    let json = ("content-type", image.media_type);
    let (right, wrong) = (image.manifest_digest.clone(), other.manifest_digest.clone());
    let long = vec![b' '; MAX_MANIFEST + 1];
    for (reference, behaviour, words) in [
        (
            right.as_str(),
            answer(&[json], &other.manifest),
            "asked for",
        ),
        (
            "1",
            answer(&[json, ("docker-content-digest", &wrong)], &image.manifest),
            "asked for",
        ),
        (
            "1",
            answer(&[("content-type", "text/html")], b"<html>"),
            "text/html",
        ),
        ("1", answer(&[json], b""), "no manifest"),
        ("1", answer(&[json], &long), "more than"),
        ("1", Behaviour::Endless, "more than"),
        ("1", Behaviour::Truncated, "in the middle of its body"),
    ] {
        registry.behave_for("team/app", behaviour.clone());
        let error = repository.manifest(reference).await.unwrap_err();
        assert!(
            matches!(error.failure, Failure::ImageFailed { .. }),
            "{error:?}"
        );
        assert!(error.detail.contains(words), "{words}: {}", error.detail);
    }
    registry.behave_well();
    registry.behave_for_tag("team/app", "1", answer(&[json], &image.manifest));
    let manifest = repository.manifest("1").await.unwrap();
    assert_eq!(manifest.digest, image.manifest_digest);
}

#[tokio::test]
async fn sha512_is_verified_too() {
    use sha2::{Digest, Sha512};
    let (registry, image) = registry();
    let wanted = format!("sha512:{:x}", Sha512::digest(&image.manifest));
    registry.behave(answer(&[], &image.manifest));
    let repository = repository(&registry.url());
    assert_eq!(repository.manifest(&wanted).await.unwrap().digest, wanted);
    let other = format!("sha512:{:x}", Sha512::digest(b"other"));
    assert_eq!(
        repository.manifest(&other).await.unwrap_err().cause(),
        Some(Cause::Protocol)
    );
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    let (registry, _) = registry();
    let repository = repository(&registry.url());
    let body = vec![b'x'; 10];
    for (range, good) in [
        (Some("bytes 5-14/100"), true),
        (Some("bytes 5-14/*"), true),
        (Some("bytes 0-9/100"), false),
        (Some("bytes 5-20/100"), false),
        (Some("bytes 5-13/100"), false),
        (None, false),
    ] {
        let headers = range.map(|range| ("content-range", range.to_owned()));
        registry.behave(Behaviour::Answer {
            status: StatusCode::PARTIAL_CONTENT,
            headers: headers.into_iter().collect(),
            body: body.clone().into(),
        });
        let blob = repository.blob(&digest(b"x"), 5, Some(14)).await;
        assert_eq!(blob.is_ok(), good, "{range:?}: {blob:?}");
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_or_stalls_says_how_far_it_came() {
    let (registry, image) = registry();
    let options = FetchOptions {
        idle_timeout: Duration::from_millis(200),
        ..FetchOptions::default()
    };
    let repository = repository_with(&client(), &registry.url(), options);
    for (behaviour, cause) in [
        (Behaviour::Truncated, Cause::Reset),
        (Behaviour::Stalled, Cause::Timeout),
    ] {
        registry.behave(behaviour);
        let mut blob = repository
            .blob(&image.config_digest, 0, None)
            .await
            .unwrap();
        assert!(blob.chunk().await.unwrap().is_some());
        let error = blob.chunk().await.unwrap_err();
        assert_eq!(error.cause(), Some(cause), "{error}");
        assert!(error.detail.contains("of 10000 bytes"), "{error}");
    }
    registry.behave(Behaviour::BlackHole);
    let options = FetchOptions {
        answer_timeout: Duration::from_millis(200),
        ..FetchOptions::default()
    };
    let impatient = repository_with(&client(), &registry.url(), options);
    let error = impatient
        .blob(&image.config_digest, 0, None)
        .await
        .unwrap_err();
    assert_eq!(error.cause(), Some(Cause::Timeout), "{error}");
}

#[tokio::test]
async fn a_blob_that_only_get_shows_is_there() {
    let (registry, image) = registry();
    let repository = repository(&registry.url());
    registry.behave_for_blobs(REPOSITORY, Behaviour::HeadRefused);
    let config = image.blobs.iter().find(|b| b.digest == image.config_digest);
    let size = Some(config.unwrap().content.len() as u64);
    let head = repository.head_blob(&image.config_digest).await.unwrap();
    assert_eq!(head.size, size);
    let missing = repository.head_blob(&digest(b"missing")).await.unwrap_err();
    assert_eq!(missing.failure, Failure::NotFound);
}

#[tokio::test]
async fn refusals_are_those_of_probes() {
    let (mut registry, _) = registry();
    let repository = repository(&registry.url());
    let retry_after = Some(Duration::from_secs(7));
    registry.behave(Behaviour::RateLimited {
        retry_after: Some("7".into()),
    });
    let error = repository.manifest("1").await.unwrap_err();
    assert_eq!(error.failure, Failure::RateLimited { retry_after });
    registry.behave(Behaviour::Status(StatusCode::LOOP_DETECTED));
    let error = repository.manifest("1").await.unwrap_err();
    // A circle of caches: whoever says so is no candidate.
    assert_eq!(
        (error.failure, error.status),
        (Failure::NotFound, Some(508))
    );
    let service = TokenService::start(TokenOptions::default()).unwrap();
    service.behave(Behaviour::Status(StatusCode::BAD_REQUEST));
    registry.require_token(&service);
    let error = repository.manifest("1").await.unwrap_err();
    assert_eq!(
        (error.cause(), error.status),
        (Some(Cause::TokenService), Some(400))
    );
    registry.stop().await;
    let error = repository.manifest("1").await.unwrap_err();
    let cause = Cause::Refused;
    assert_eq!(error.failure, Failure::Unavailable { cause });
}

#[tokio::test]
async fn a_transfer_holds_no_slot() {
    let (registry, image) = registry();
    let client = Client::new(registry::ClientOptions {
        concurrency_per_registry: 1,
        ..crate::setup::options()
    });
    registry.behave_for_blobs(REPOSITORY, Behaviour::Stalled);
    let repository = repository_with(&client, &registry.url(), FetchOptions::default());
    let slow = repository
        .blob(&image.config_digest, 0, None)
        .await
        .unwrap();
    let manifest = repository.manifest("1").await.unwrap();
    assert_eq!(manifest.digest, image.manifest_digest);
    drop(slow);
}
