use super::*;

#[tokio::test]
async fn ranges_of_what_is_complete() {
    let world = World::new();
    place(&world, "a", 100);
    let image = push(&world, "a", "1", b"0123456789");
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    world.get(&path).await;
    let transfers = world.cache.clone();
    testkit::wait::until("it is stored", || async {
        (transfers.transfers().count() == 0).then_some(())
    })
    .await;
    let range = async |range: &str| world.ask(Method::GET, &path, &[("range", range)]).await;
    let part = range("bytes=2-4").await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, b"234".as_slice())
    );
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let rest = range("bytes=7-").await;
    assert_eq!(rest.body, b"789");
    let none = range("bytes=10-").await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, "bytes */10")
    );
    let several = range("bytes=0-1,-2").await;
    assert_eq!(several.status, 206);
    let kind = several.header("content-type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let text = String::from_utf8(several.body.clone()).unwrap();
    let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4);
    assert!(
        parts[1].contains("Content-Range: bytes 0-1/10") && parts[1].ends_with("\r\n\r\n01\r\n")
    );
    assert!(
        parts[2].contains("Content-Range: bytes 8-9/10") && parts[2].ends_with("\r\n\r\n89\r\n")
    );
    let length: usize = several.header("content-length").parse().unwrap();
    assert_eq!(length, several.body.len());
    let other = [("range", "bytes=2-4"), ("if-range", "\"other\"")];
    let whole = world.ask(Method::GET, &path, &other).await;
    assert_eq!((whole.status, whole.body.len()), (200, 10));
}

#[tokio::test(start_paused = true)]
async fn ranges_while_it_arrives() {
    let world = World::new();
    place(&world, "a", 100);
    let layer: Vec<u8> = (0..400_000u32).map(|n| (n % 253) as u8).collect();
    let image = push(&world, "a", "1", &layer);
    world
        .upstream
        .with("a", |fake| fake.pace = Duration::from_millis(10));
    let path = format!("/v2/quay.io/x/blobs/{}", image.layer);
    let whole = world.get(&path);
    let part = async {
        // As containerd asks for the chunks of one blob.
        testkit::wait::until("the transfer has begun", || async {
            (world.cache.transfers().count() > 0).then_some(())
        })
        .await;
        world
            .ask(Method::GET, &path, &[("range", "bytes=300000-")])
            .await
    };
    let (whole, part) = tokio::join!(whole, part);
    assert!(whole.body == layer);
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), "bytes 300000-399999/400000");
    assert!(part.body == layer[300_000..]);
    assert_eq!(world.upstream.sent(), 400_000);
}
