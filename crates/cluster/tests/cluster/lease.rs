use std::sync::Arc;

use cluster::{FailureKind, SharedLease, Written};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use testkit::fake_api_server::{ApiFault, FakeApiServer};

use crate::world::clients;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/turn";

struct World {
    server: FakeApiServer,
    lease: SharedLease,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let server = FakeApiServer::start().unwrap();
        let (clients, dir) = clients(&server);
        Self {
            server,
            lease: SharedLease::new(Arc::new(clients), "ours".to_owned(), "turn".to_owned()),
            _dir: dir,
        }
    }
}

/// As `node` would write it over what was read.
fn held_by(node: &str, read: Option<Lease>) -> Lease {
    let mut lease = read.unwrap_or_default();
    lease.metadata.name = Some("turn".to_owned());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node.to_owned()),
        ..LeaseSpec::default()
    });
    lease
}

#[tokio::test]
async fn who_has_seen_an_older_version_writes_nothing() {
    let World { server, lease, .. } = &World::new();
    assert_eq!(lease.read().await.unwrap(), None);
    // Both have seen that there is none.
    let Written::Done(first) = lease.write(&held_by("one", None)).await.unwrap() else {
        panic!("the first one is refused");
    };
    let second = lease.write(&held_by("two", None)).await.unwrap();
    assert_eq!(second, Written::Conflict);
    // Both have seen the first version.
    let seen = lease.read().await.unwrap();
    assert_eq!(seen.as_ref(), Some(&*first));
    let won = lease.write(&held_by("three", seen.clone())).await.unwrap();
    assert!(matches!(won, Written::Done(_)));
    let late = lease.write(&held_by("four", seen)).await.unwrap();
    assert_eq!(late, Written::Conflict);
    assert_eq!(server.get(PATH).unwrap()["spec"]["holderIdentity"], "three");
    // It was deleted since it was read.
    let seen = lease.read().await.unwrap();
    server.delete(PATH);
    let gone = lease.write(&held_by("five", seen)).await.unwrap();
    assert_eq!(gone, Written::Conflict);
}

#[tokio::test]
async fn no_answer_is_a_failure_and_the_next_question_is_asked_anew() {
    let World { server, lease, .. } = &World::new();
    server.set_fault(Some(ApiFault::Status(403)));
    let refused = lease.read().await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Forbidden);
    server.set_fault(Some(ApiFault::HangUp));
    let away = lease.write(&held_by("one", None)).await.unwrap_err();
    assert_eq!(away.kind, FailureKind::Unavailable);
    server.set_fault(None);
    let written = lease.write(&held_by("one", None)).await.unwrap();
    assert!(matches!(written, Written::Done(_)));
}
