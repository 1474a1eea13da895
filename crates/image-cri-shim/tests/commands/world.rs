//! What every test here needs: the binary run as a person runs it, and its output made comparable.

use std::path::Path;
use std::process::Stdio;

use prost::Message;
use testkit::cri_api::{PullImageRequest, RpcStatus};
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_image-cri-shim");
/// Nobody listens there: what is not on this machine is refused at once, instead of looked for in the
/// world.
pub(crate) const NO_WORLD: (&str, &str) = ("HTTPS_PROXY", "http://127.0.0.1:9");
/// The password of every test here; must never be printed.
pub(crate) const PASSWORD: &str = "hunter2";

/// What a command gave.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// All of it in one text, for snapshots.
    pub(crate) fn text(&self) -> String {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        format!("exit {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }
}

/// Nothing is wrapped: where it would be depends on the length of ports, times and temporary paths.
const WIDE: (&str, &str) = ("COLUMNS", "1000");

/// Runs `image-cri-shim -f CONFIG ARGS…` with an environment of its own.
pub(crate) async fn run(config: &Path, args: &[&str]) -> Output {
    run_with(config, args, &[], "").await
}

/// The same with variables and something on standard input.
pub(crate) async fn run_with(
    config: &Path,
    args: &[&str],
    env: &[(&str, &str)],
    stdin: &str,
) -> Output {
    let mut child = Command::new(BINARY)
        .env_clear()
        .envs([NO_WORLD, ("KUBECONFIG", "/nonexistent"), WIDE])
        .envs(env.iter().copied())
        .arg("-f")
        .arg(config)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Who doesn't read it all has closed it.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let output = Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!output.text().contains(PASSWORD), "{}", output.text());
    output
}

/// A shim that is not started yet, in front of a fake runtime.
pub(crate) async fn prepared(config: &str) -> (Shim, FakeRuntime) {
    let runtime = FakeRuntime::start().await.unwrap();
    let (name, value) = NO_WORLD;
    let options = Options::new(BINARY, runtime.socket()).env(name, value);
    (Shim::prepare(config, options).unwrap(), runtime)
}

/// Names that the runtime was asked to pull, in order.
pub(crate) fn pulled(runtime: &FakeRuntime) -> Vec<String> {
    let pulls = runtime.requests();
    let pulls = pulls
        .iter()
        .filter(|request| request.path.ends_with("/PullImage"));
    pulls
        .map(|request| {
            let request = PullImageRequest::decode(request.message.clone()).unwrap();
            request.image.unwrap_or_default().image
        })
        .collect()
}

/// A status with which every pull may fail.
pub(crate) fn no_space() -> RpcStatus {
    RpcStatus {
        code: 2,
        message: "no space left on device".to_owned(),
        details: Vec::new(),
    }
}

/// `text` with what differs from run to run replaced: addresses, times, digests, directories. Spaces
/// between columns become two, since times are of different lengths.
pub(crate) fn settled(text: &str, registries: &[&FakeRegistry], dir: &Path) -> String {
    let mut text = text.replace(&dir.display().to_string(), "[dir]");
    for (at, registry) in registries.iter().enumerate() {
        text = text.replace(&registry.host(), &format!("registry-{at}.test"));
    }
    for (pattern, replacement) in [
        (r"sha256:[0-9a-f]{64}", "sha256:[64 digits]"),
        (r"sha256:[0-9a-f]{12}", "sha256:[12 digits]"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "[time]"),
        (r"just now|\b\d+ (s|min) ago", "[ago]"),
        (r"\b\d+(\.\d+)? (µs|ms|s)\b", "[duration]"),
        (r"tried again in \d+\.\d+s", "tried again in [duration]"),
        (
            r#""(elapsed_us|resolved_us|started_us|latency_us|uptime_seconds|retry_in_ms)": \d+"#,
            r#""$1": 0"#,
        ),
        (r"/tmp/testkit-[^/ ]+/", "[tmp]/"),
        (r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:[port]"),
        (r"  +", "  "),
    ] {
        let pattern = regex::Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, replacement).into_owned();
    }
    text
}
