//! What the commands do on a terminal: colours, its width, progress, refreshing, Ctrl-C.

use parking_lot::Mutex;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use testkit::fake_registry::Behaviour;
use testkit::wait;
use tokio::process::{Child, Command};

use crate::printed::World;
use crate::world::{BINARY, NO_WORLD, PASSWORD, prepared};

/// The binary on a terminal of its own.
struct Terminal {
    child: Child,
    written: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn run(world: &World, columns: u16, env: &[(&str, &str)], args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: 200,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let slave = || Stdio::from(slave.try_clone().unwrap());
        let child = Command::new(BINARY)
            .env_clear()
            .envs([NO_WORLD, ("TERM", "xterm")])
            .envs(env.iter().copied())
            .arg("-f")
            .arg(world.shim.config_file())
            .args(args)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let written = Arc::default();
        let reader = collect(master, Arc::clone(&written));
        Self {
            child,
            written,
            reader,
        }
    }

    fn written(&self) -> String {
        self.written.lock().clone()
    }

    async fn wait_for(&self, text: &str) {
        wait::until(text, async || self.written().contains(text).then_some(())).await;
    }

    /// Forgets what was written so far.
    fn clear(&self) {
        self.written.lock().clear();
    }

    async fn interrupt(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        self.child.wait().await.unwrap()
    }

    /// Waits for the end; gives all that was written.
    async fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().await.unwrap();
        let reader = self.reader;
        // Nobody has the terminal open any more, so its other end comes to an end.
        tokio::task::spawn_blocking(|| reader.join().unwrap())
            .await
            .unwrap();
        let written = self.written.lock().clone();
        assert!(!written.contains(PASSWORD), "{written}");
        (status, written)
    }
}

/// On a thread of its own until the terminal's other end is closed.
fn collect(master: OwnedFd, written: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut master = File::from(master);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            written.lock().push_str(&text);
        }
    })
}

fn shown(world: &World, written: &str) -> String {
    world
        .settled(&written.replace("\r\n", "\n"))
        .replace('\u{1b}', "ESC")
}

#[tokio::test]
async fn colors_where_they_are_wanted() {
    let world = World::started().await;
    let app = world.at_origin("team/app:1");
    let (status, colored) = Terminal::run(&world, 200, &[], &["resolve", &app])
        .end()
        .await;
    assert!(status.success());
    assert_snapshot!("terminal_colors", shown(&world, &colored));
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (_, written) = Terminal::run(&world, 200, &[plain], &["resolve", &app])
            .end()
            .await;
        assert!(!written.contains('\u{1b}'), "{plain:?}: {written}");
        assert!(written.contains("pulled as"), "{plain:?}: {written}");
    }
}

#[tokio::test]
async fn as_wide_as_the_terminal() {
    let world = World::started().await;
    let env = [("NO_COLOR", "1")];
    for columns in [40, 60, 100] {
        let terminal = Terminal::run(&world, columns, &env, &["status"]);
        let (_, written) = terminal.end().await;
        for line in written.lines() {
            let words = line.split_whitespace().count();
            // A label and a word that is longer than the line can't be helped.
            let fits = line.chars().count() <= usize::from(columns) || words <= 2;
            assert!(fits, "{columns} columns: {line:?}");
        }
    }
}

#[tokio::test]
async fn progress_is_for_who_waits() {
    let world = World::started().await;
    let images = ["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1"];
    let args: Vec<&str> = ["resolve", "--offline"].into_iter().chain(images).collect();
    let (_, written) = Terminal::run(&world, 100, &[], &args).end().await;
    assert!(written.contains("of 7"), "{written:?}");
    assert!(written.contains("7 of 7 images understood"), "{written:?}");
    let dumb = [("TERM", "dumb")];
    let (_, written) = Terminal::run(&world, 100, &dumb, &args).end().await;
    assert!(!written.contains("1 of 7"), "{written:?}");
}

#[tokio::test]
async fn a_long_pull_says_what_it_is_doing() {
    let world = World::started().await;
    world.runtime.hang("PullImage");
    let app = world.at_origin("team/app:1");
    let mut terminal = Terminal::run(&world, 200, &[], &["resolve", "--pull", &app]);
    terminal.wait_for("/proxy, ").await;
    assert!(terminal.written().contains("pulling from http://"));
    let status = terminal.interrupt().await;
    assert_eq!(status.code(), Some(130));
    wait::until("the runtime sees that nobody waits any more", async || {
        (world.runtime.cancellations() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn interrupted_while_a_registry_is_silent() {
    let registry = testkit::fake_registry::FakeRegistry::start().unwrap();
    registry.behave(Behaviour::BlackHole);
    let config = format!("probeTimeout: 1h\naddress: {}", registry.url());
    let (shim, _runtime) = prepared(&config).await;
    let mut child = Command::new(BINARY)
        .env_clear()
        .arg("-f")
        .arg(shim.config_file())
        .args(["resolve", "x:1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait::until("the registry is asked", async || {
        (!registry.recording().is_empty()).then_some(())
    })
    .await;
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_status_that_is_watched() {
    let mut world = World::started().await;
    let app = world.at_origin("team/app:1");
    let mut terminal = Terminal::run(&world, 200, &[], &["status", "--watch"]);
    terminal.wait_for("No decisions yet").await;
    world.shim.client().pull(&app, None).await.unwrap();
    terminal.wait_for("Last 1 of 1 decision").await;
    world.shim.terminate().await.unwrap();
    terminal.wait_for("no image-cri-shim runs at").await;
    terminal.wait_for("what was known last").await;
    terminal.clear();
    world.shim.start_again().await.unwrap();
    terminal.wait_for("No decisions yet").await;
    let status = terminal.interrupt().await;
    assert!(status.success(), "{status}");
    let (_, written) = terminal.end().await;
    let (before, after) = written
        .rsplit_once("\u{1b}[?25h")
        .expect("the cursor is back");
    assert!(before.contains("\u{1b}[H"), "{before}");
    assert_eq!(after, "\u{1b}[?1049l", "and so is the screen");
}

#[tokio::test]
async fn a_watch_that_starts_before_the_shim() {
    let mut world = World::new().await;
    let mut terminal = Terminal::run(&world, 200, &[("NO_COLOR", "1")], &["status", "--watch"]);
    terminal.wait_for("waiting for it").await;
    world.shim.start_again().await.unwrap();
    terminal.wait_for("No decisions yet").await;
    terminal.interrupt().await;
    let (_, written) = terminal.end().await;
    assert!(!written.contains("\u{1b}[1m"), "{written}");
}
