//! Browsers that start, one at a time.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;

/// A program that notes each start in `DIR/starts`, dies at the first `deaths`, and is Chromium after that.
fn dies(dir: &Path, deaths: usize) -> PathBuf {
    let starts = dir.join("starts").display().to_string();
    let chromium = ensure().unwrap().display().to_string();
    let script = format!(
        "#!/bin/sh\necho start >>'{starts}'\n\
         if [ \"$(wc -l <'{starts}')\" -le {deaths} ]; then echo 'no memory left' >&2; exit 133; fi\n\
         exec {chromium} \"$@\"\n"
    );
    let program = dir.join("chromium");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

fn starts(dir: &Path) -> usize {
    let starts = std::fs::read_to_string(dir.join("starts")).unwrap();
    starts.lines().count()
}

#[tokio::test]
async fn a_browser_that_dies_at_its_start_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let browser = Browser::launch(&dies(dir.path(), STARTS - 1), &[]).await;
    let page = browser.unwrap();
    let page = page.open("data:text/html,<title>alive</title>").await;
    let title = page.unwrap().evaluate("document.title").await.unwrap();
    assert_eq!(title, "alive");
    assert_eq!(starts(dir.path()), STARTS);
}

#[tokio::test]
async fn a_browser_that_always_dies_is_given_up_with_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let failed = Browser::launch(&dies(dir.path(), usize::MAX >> 1), &[]).await;
    let error = format!("{:#}", failed.err().unwrap());
    assert!(error.contains("4 starts failed"), "{error}");
    assert!(error.contains("no memory left"), "{error}");
    assert_eq!(starts(dir.path()), STARTS);
}

#[tokio::test]
async fn one_browser_at_a_time() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let most = join_all((0..3).map(|_| async {
        let browser = Browser::start().await.unwrap();
        let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        browser.open("data:text/html,hello").await.unwrap();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        running
    }));
    assert_eq!(most.await, [1, 1, 1]);
}
