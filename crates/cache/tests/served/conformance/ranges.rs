//! Ranges of blobs, by RFC 9110, section 14.

use crate::world::{World, blob_path, manifest_path};

/// The registry's path, content and stored state that all need.
async fn stored() -> (World, String, Vec<u8>) {
    let (world, image) = World::with_image().await;
    let blob = image.blobs.first().unwrap();
    let path = blob_path(&blob.digest);
    world.stored(&path).await;
    let content = blob.content.to_vec();
    assert!(content.len() > 4000, "{}", content.len());
    (world, path, content)
}

#[tokio::test]
async fn a_range_should_be_answered_with_206_and_what_it_is() {
    let (world, path, content) = stored().await;
    let length = content.len();
    let last = length - 1;
    for (range, start, end) in [
        ("bytes=500-1499".to_owned(), 500, 1500),
        ("bytes=500-".to_owned(), 500, length),
        ("bytes=-500".to_owned(), length - 500, length),
        (format!("bytes=2000-{}", length + 5000), 2000, length),
        ("bytes=0-0".to_owned(), 0, 1),
        (format!("bytes={last}-"), last, length),
        (format!("bytes=-{}", length + 1), 0, length),
    ] {
        let answer = world.ask("GET", &path, &[("Range", &range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, content[start..end], "{range}");
        let expected = format!("bytes {start}-{}/{length}", end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_range_of_a_blob_that_is_not_stored_yet_should_be_answered_with_206() {
    let (world, image) = World::with_image().await;
    for (blob, range) in image.blobs.iter().zip(["bytes=100-", "bytes=10-19"]) {
        let path = blob_path(&blob.digest);
        let answer = world.ask("GET", &path, &[("Range", range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        let length = blob.content.len();
        let expected = match range {
            "bytes=100-" => (100, length),
            _ => (10, 20),
        };
        assert_eq!(answer.body, blob.content[expected.0..expected.1]);
        let expected = format!("bytes {}-{}/{length}", expected.0, expected.1 - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn several_ranges_should_be_answered_as_multipart() {
    let (world, path, content) = stored().await;
    let range = [("Range", "bytes=0-9, 100-109, -5")];
    let answer = world.ask("GET", &path, &range).await;
    assert_eq!(answer.status, 206);
    let kind = answer.header("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let (mut at, mut found) = (0, Vec::new());
    let separator = format!("--{boundary}").into_bytes();
    let body = &answer.body;
    while let Some(next) = find(&body[at..], &separator) {
        at += next + separator.len();
        if let Some(end) = find(&body[at..], b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&body[at..at + end]).into_owned();
            let (start, last) = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Range: bytes "))
                .and_then(|range| range.split_once('/')?.0.split_once('-'))
                .unwrap();
            let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
            let from = at + end + 4;
            assert_eq!(body[from..from + last + 1 - start], content[start..=last]);
            found.push((start, last));
            at = from + last + 1 - start;
        }
    }
    let length = content.len();
    assert_eq!(found, [(0, 9), (100, 109), (length - 5, length - 1)]);
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[tokio::test]
async fn a_range_of_nothing_that_is_there_must_be_416_with_the_length() {
    let (world, path, content) = stored().await;
    for range in [
        format!("bytes={}-", content.len()),
        "bytes=500000-1000000".to_owned(),
        "bytes=-0".to_owned(),
        // The end before the beginning: the conformance suite wants it refused, not ignored.
        "bytes=500-0".to_owned(),
    ] {
        let answer = world.ask("GET", &path, &[("Range", &range)]).await;
        assert_eq!(answer.status, 416, "{range}");
        let expected = format!("bytes */{}", content.len());
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_range_in_another_unit_must_be_ignored() {
    let (world, path, content) = stored().await;
    for range in ["lines=1-2", "bytes", "bytes=x-y", ""] {
        let answer = world.ask("GET", &path, &[("Range", range)]).await;
        assert_eq!(answer.status, 200, "{range}");
        assert_eq!(answer.body, content, "{range}");
    }
}

#[tokio::test]
async fn a_range_must_be_ignored_where_if_range_names_another_content() {
    let (world, path, content) = stored().await;
    let etag = world.get(&path).await.header("etag").unwrap().to_owned();
    for (condition, status) in [(etag.as_str(), 206), ("\"other\"", 200)] {
        let headers = [("Range", "bytes=0-9"), ("If-Range", condition)];
        let answer = world.ask("GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{condition}");
        let expected = if status == 206 { 10 } else { content.len() };
        assert_eq!(answer.body.len(), expected);
    }
}

#[tokio::test]
async fn a_range_must_be_ignored_by_other_methods_than_get() {
    let (world, path, content) = stored().await;
    let answer = world.ask("HEAD", &path, &[("Range", "bytes=0-9")]).await;
    assert_eq!(answer.status, 200);
    let length = content.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
}

#[tokio::test]
async fn blobs_should_say_that_they_take_ranges() {
    let (world, path, _) = stored().await;
    for method in ["GET", "HEAD"] {
        let answer = world.ask(method, &path, &[]).await;
        assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{method}");
    }
    // A manifest is small: it comes whole.
    let range = [("Range", "bytes=0-9")];
    let answer = world.ask("GET", &manifest_path("1"), &range).await;
    assert_eq!(answer.status, 200);
}
