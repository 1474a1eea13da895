use std::os::unix::net::UnixListener as StdUnixListener;

use testkit::wait::until;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn the_socket_is_private_until_it_has_the_runtimes_owner_and_mode() {
    let dir = tempfile::tempdir().unwrap();
    let (path, runtime) = (dir.path().join("a/b/shim.sock"), dir.path().join("r.sock"));
    let listener = Listener::bind(&path, &runtime).unwrap();
    assert_eq!(mode(&path), 0o600);
    let mut sharing = std::pin::pin!(listener.share());
    assert!(futures_util::poll!(sharing.as_mut()).is_pending());
    assert_eq!(mode(&path), 0o600);

    let _runtime = StdUnixListener::bind(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o660)).unwrap();
    std::os::unix::fs::chown(&runtime, Some(7), Some(9)).unwrap();
    sharing.await;
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (7, 9));
    assert_eq!(mode(&path), 0o660);
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path, dir.path().join("none")).unwrap();
    let _client = StdUnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_socket_and_any_other_file_are_errors_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.sock");
    let _other = StdUnixListener::bind(&path).unwrap();
    let error = Listener::bind(&path, dir.path()).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()));
    StdUnixStream::connect(&path).unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&file, &link, &dir.path().to_owned()] {
        let error = Listener::bind(path, dir.path()).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
        assert!(path.exists());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_says_so() {
    let path = format!("/tmp/{}", "x".repeat(120));
    let error = Listener::bind(&path, "/none").unwrap_err();
    assert!(matches!(error, ListenError::PathTooLong { .. }), "{error}");
}

#[tokio::test]
async fn a_socket_that_another_process_put_in_our_place_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, runtime) = (dir.path().join("shim.sock"), dir.path().join("r.sock"));
    let listener = Listener::bind(&path, &runtime).unwrap();
    // Renamed and not removed: a new file could get the old one's inode number.
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let _other = StdUnixListener::bind(&path).unwrap();
    let before = mode(&path);
    let _runtime = StdUnixListener::bind(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o606)).unwrap();
    listener.share().await;
    assert_eq!(mode(&path), before);
    drop(listener);
    StdUnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn connections_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.sock");
    let listener = Listener::bind(&path, "/none").unwrap();
    let _client = StdUnixStream::connect(&path).unwrap();
    until("a connection", || async { listener.accept().await.ok() }).await;
}

#[tokio::test]
async fn a_socket_changes_hands_and_nobody_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.sock");
    let old = Listener::bind(&path, "/none").unwrap();
    let (open, opened) = watch::channel(false);
    let (_first, first) = UnixStream::pair().unwrap();
    let new = Listener::take_over(old.copy().unwrap(), "/none", vec![first], opened).unwrap();
    new.accept().await.unwrap();
    let _client = StdUnixStream::connect(&path).unwrap();
    assert!(
        futures_util::poll!(std::pin::pin!(new.accept())).is_pending(),
        "it is the old one's"
    );
    old.accept().await.unwrap();
    // Who connects while nobody accepts waits.
    old.leave();
    let _client = StdUnixStream::connect(&path).unwrap();
    open.send_replace(true);
    until("a connection", || async { new.accept().await.ok() }).await;
    drop(new);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_was_not_taken_over_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shim.sock");
    let old = Listener::bind(&path, "/none").unwrap();
    for retires in [false, true] {
        let (_open, opened) = watch::channel(false);
        let new = Listener::take_over(old.copy().unwrap(), "/none", Vec::new(), opened).unwrap();
        let _client = StdUnixStream::connect(&path).unwrap();
        match retires {
            true => assert!(new.retire().is_empty()),
            false => drop(new),
        }
        assert!(path.exists());
        until("a connection", || async { old.accept().await.ok() }).await;
    }
    // What is no such socket is an error.
    let (_open, opened) = watch::channel(false);
    let mut other = old.copy().unwrap();
    other.socket = UnixStream::pair().unwrap().0.into_std().unwrap().into();
    let error = Listener::take_over(other, "/none", Vec::new(), opened).unwrap_err();
    assert!(matches!(error, ListenError::NotListening { .. }), "{error}");
}
