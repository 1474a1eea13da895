//! Certificates change under load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use listener::certificate::Store;
use listener::certificate::files::Files;
use testkit::admission::{NAME, url};
use testkit::certs::{Ca, ServerCert};
use testkit::wait::until;
use tokio::sync::Notify;
use webhook::Limits;

use crate::world::{CONFIG, World, client, fixture, pem};

fn write(dir: &Path, cert: &ServerCert) {
    // As a kubelet does it: a new directory, then one rename of the link to it.
    let version = tempfile::Builder::new()
        .prefix("..v")
        .tempdir_in(dir)
        .unwrap()
        .keep();
    std::fs::write(version.join("tls.crt"), &cert.cert_pem).unwrap();
    std::fs::write(version.join("tls.key"), &cert.key_pem).unwrap();
    let link = dir.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &link).unwrap();
    std::fs::rename(&link, dir.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_under_load_cost_no_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Ca::new().unwrap(), Ca::new().unwrap());
    write(dir.path(), &first.issue(&[NAME]).unwrap());
    for name in ["tls.crt", "tls.key"] {
        let target = Path::new("..data").join(name);
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
    }
    let store = Arc::new(Store::default());
    let files = Files {
        certificate: dir.path().join("tls.crt"),
        key: dir.path().join("tls.key"),
    };
    files.load(&store).await.unwrap();
    let wake = Arc::new(Notify::new());
    let following = tokio::spawn(files.follow(Arc::clone(&store), Arc::clone(&wake)));
    let world = World::with_store(CONFIG, Limits::default(), store, &first.pem()).await;
    let both = format!("{}{}", first.pem(), second.pem());

    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let (address, both) = (world.address, both.clone());
            tokio::spawn(async move {
                let body = fixture("create").to_string();
                while !stop.load(Ordering::Relaxed) {
                    // A new client is a new handshake.
                    let client = client(address, &[&both]);
                    let sent = client.post(url()).body(body.clone()).send().await;
                    assert_eq!(sent.unwrap().status(), 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..10 {
        let ca = if round % 2 == 0 { &second } else { &first };
        write(dir.path(), &ca.issue(&[NAME]).unwrap());
        wake.notify_one();
        // In use is what a client sees that trusts this CA alone.
        until("the new certificate is in use", || async {
            let client = client(world.address, &[&ca.pem()]);
            let body = fixture("create").to_string();
            client.post(url()).body(body).send().await.ok()
        })
        .await;
    }
    let before = done.load(Ordering::Relaxed);
    until("some more reviews", || async {
        (done.load(Ordering::Relaxed) > before + 20).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    following.abort();
}

#[tokio::test]
async fn what_can_not_be_used_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new().unwrap();
    let (one, other) = (ca.issue(&[NAME]).unwrap(), ca.issue(&[NAME]).unwrap());
    let files = Files {
        certificate: dir.path().join("tls.crt"),
        key: dir.path().join("tls.key"),
    };
    let store = Store::default();
    assert!(store.check().is_err());
    assert!(
        files
            .load(&store)
            .await
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
    std::fs::write(&files.certificate, &one.cert_pem).unwrap();
    std::fs::write(&files.key, &one.key_pem).unwrap();
    assert!(files.load(&store).await.unwrap());
    assert!(!files.load(&store).await.unwrap());
    store.check().unwrap();
    for (path, text) in [
        (&files.key, other.key_pem.as_str()),
        (&files.key, "garbage"),
        (&files.certificate, "garbage"),
        (&files.certificate, ""),
    ] {
        std::fs::write(&files.certificate, &one.cert_pem).unwrap();
        std::fs::write(&files.key, &one.key_pem).unwrap();
        std::fs::write(path, text).unwrap();
        let error = files.load(&store).await.unwrap_err().to_string();
        assert!(!error.contains(text) || text.is_empty(), "{error}");
        store.check().unwrap();
    }
    store
        .set(&pem(&ca.issue_expired(&[NAME]).unwrap()))
        .unwrap();
    assert!(store.check().unwrap_err().to_string().contains("expired"));
}
