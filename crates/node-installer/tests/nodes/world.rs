//! Nodes that are trees of files, with installers that write to them for real.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster::{ClientProvider, KubeconfigCandidates, SharedLease};
use installer::payload::Payload;
use installer::transaction::{self, Wanted};
use installer::wiring::{self, Scope};
use installer::{Node, Root};
use node_installer::{Host, Installer, Progress, Task, Timing};
use serde_json::Value;
use tempfile::TempDir;
use testkit::fake_api_server::FakeApiServer;
use testkit::{tree, wait};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/installer/leases/image-cri-shim-node-installer";
const UNIT: &str = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\n";

/// An API server and what all nodes share.
pub(crate) struct World {
    pub(crate) server: FakeApiServer,
    /// How many nodes are being changed now, and at most were.
    pub(crate) at_once: Arc<AtomicUsize>,
    pub(crate) most_at_once: Arc<AtomicUsize>,
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            server: FakeApiServer::start().unwrap(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(world.kubeconfig(), world.server.kubeconfig()).unwrap();
        world
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub(crate) fn lease(&self) -> Option<Value> {
        self.server.get(LEASE)
    }

    pub(crate) fn holder(&self) -> Option<String> {
        let holder = self.lease()?["spec"]["holderIdentity"].clone();
        holder.as_str().map(str::to_owned)
    }

    pub(crate) fn marks(&self) -> BTreeMap<String, String> {
        self.server.marks(LEASE)
    }

    pub(crate) fn clear_marks(&self) {
        self.server.clear_marks(LEASE);
    }

    pub(crate) fn delete_lease(&self) {
        self.server.delete(LEASE);
    }

    pub(crate) async fn until_held_by(&self, node: &str) {
        wait::until(&format!("{node} to have the Lease"), || async {
            (self.holder().as_deref() == Some(node)).then_some(())
        })
        .await;
    }
}

/// A node: a tree, whose kubelet works through the shim unless it is told not to.
pub(crate) struct TreeNode {
    pub(crate) name: String,
    dir: TempDir,
    before: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) behaviour: Arc<Behaviour>,
}

/// What the node does with a change.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Its kubelet does not work through the shim.
    pub(crate) is_broken: AtomicBool,
    /// A change stops when its files are written, and goes on when it is told to.
    pub(crate) stops: AtomicBool,
    pub(crate) go_on: Notify,
    /// How many changes have begun.
    pub(crate) changes: AtomicUsize,
}

impl TreeNode {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/systemd/system/kubelet.service", UNIT),
            ("etc/default/kubelet", "KUBELET_EXTRA_ARGS=--v=2\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let before = tree::snapshot(dir.path()).unwrap();
        Self {
            name: name.to_owned(),
            dir,
            before,
            behaviour: Arc::default(),
        }
    }

    pub(crate) fn changes(&self) -> usize {
        self.behaviour.changes.load(Ordering::SeqCst)
    }

    /// Every file as it was before anything was installed.
    pub(crate) fn is_untouched(&self) -> bool {
        self.snapshot() == self.before
    }

    /// What the node has of the program; `None` where it is not installed.
    pub(crate) fn installed(&self) -> Option<String> {
        let kubelet = fs::read_to_string(self.dir.path().join("etc/default/kubelet")).unwrap();
        let program = self.dir.path().join("usr/local/bin/image-cri-shim");
        let program = fs::read_to_string(program).ok();
        let is_wired = kubelet.contains("--image-service-endpoint=unix:///run/image-cri-shim.sock");
        assert_eq!(is_wired, program.is_some(), "{}: {kubelet}", self.name);
        program
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        tree::snapshot(self.dir.path()).unwrap()
    }

    fn host(&self, world: &World, change: Change) -> TreeHost {
        TreeHost {
            root: Root::new(self.dir.path()),
            change,
            behaviour: Arc::clone(&self.behaviour),
            at_once: Arc::clone(&world.at_once),
            most_at_once: Arc::clone(&world.most_at_once),
        }
    }

    /// Starts its Pod.
    pub(crate) fn start(&self, world: &World, change: Change) -> Pod {
        let candidates = KubeconfigCandidates {
            kubeconfig: vec![world.kubeconfig()],
            ..KubeconfigCandidates::default()
        };
        let lease = SharedLease::new(
            Arc::new(ClientProvider::new(candidates)),
            "installer".to_owned(),
            "image-cri-shim-node-installer".to_owned(),
        );
        let (sender, progress) = watch::channel(Progress::Looking);
        let installer = Installer {
            node: self.name.clone(),
            task: change.task(),
            lease,
            host: self.host(world, change),
            timing: Timing {
                // A busy machine must not make anybody look silent who is not.
                lease: Duration::from_secs(8),
                poll: Duration::from_millis(20)..Duration::from_millis(60),
            },
            progress: sender,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(installer.run(async {
            let _ = stopped.await;
        }));
        Pod {
            name: self.name.clone(),
            progress,
            stop: Some(stop),
            task,
        }
    }
}

/// What is wanted of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This program.
    Install(String),
    Uninstall,
}

impl Change {
    pub(crate) fn install(version: &str) -> Self {
        Self::Install(version.to_owned())
    }

    fn task(&self) -> Task {
        match self {
            Self::Install(program) => Task::new("install", &[program.as_bytes()]),
            Self::Uninstall => Task::new("uninstall", &[]),
        }
    }
}

pub(crate) struct TreeHost {
    root: Root,
    change: Change,
    behaviour: Arc<Behaviour>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl TreeHost {
    fn wanted(&self, program: &str) -> Vec<Wanted> {
        let node = Node::look(&self.root).unwrap();
        let payload = Payload {
            program: program.as_bytes().to_vec(),
            prefix: PathBuf::from("/usr/local"),
            config: None,
        };
        let mut wanted = payload.wanted(&self.root, &node).unwrap();
        wanted.extend(wiring::wanted(&self.root, &node, Scope::Images).unwrap());
        wanted
    }
}

impl Host for TreeHost {
    async fn is_done(&self) -> Result<bool, String> {
        Ok(match &self.change {
            Change::Install(program) => {
                let changes = transaction::changes(&self.root, &self.wanted(program)).unwrap();
                changes.is_empty()
            }
            Change::Uninstall => !transaction::is_installed(&self.root).unwrap(),
        })
    }

    async fn change(&self) -> Result<(), String> {
        let _counted = Counted::new(&self.at_once, &self.most_at_once);
        self.behaviour.changes.fetch_add(1, Ordering::SeqCst);
        match &self.change {
            Change::Install(program) => {
                transaction::install(&self.root, &self.wanted(program)).unwrap();
                if self.behaviour.stops.load(Ordering::SeqCst) {
                    self.behaviour.go_on.notified().await;
                }
                if self.behaviour.is_broken.load(Ordering::SeqCst) {
                    transaction::uninstall(&self.root).unwrap();
                    Err("kubelet did not work through the shim".to_owned())
                } else {
                    Ok(())
                }
            }
            Change::Uninstall => {
                transaction::uninstall(&self.root).unwrap();
                Ok(())
            }
        }
    }
}

/// A change that is under way, until it is dropped: it may be killed, too.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(at_once: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(at_once))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running installer.
pub(crate) struct Pod {
    name: String,
    pub(crate) progress: watch::Receiver<Progress>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Pod {
    pub(crate) fn is_ready(&self) -> bool {
        self.progress.borrow().is_done()
    }

    /// Waits until its progress is such.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Progress) -> bool) {
        wait::until(&format!("{} to be {what}", self.name), || async {
            is_so(&self.progress.borrow()).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_ready(&self) {
        self.until("ready", Progress::is_done).await;
    }

    pub(crate) async fn until_waiting_for_a_failure(&self) {
        self.until("waiting, since the change has failed", |progress| {
            progress
                .to_string()
                .contains("node-2: kubelet did not work")
        })
        .await;
    }

    /// SIGTERM, by a drain or because the DaemonSet is deleted.
    pub(crate) fn terminate(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(self) {
        self.task.await.unwrap();
    }

    /// SIGKILL, or the node loses its power.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
