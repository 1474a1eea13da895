//! `cargo xtask bench`: the shim beside direct calls, on the same machine and in the same run.
//!
//! | module | what it measures |
//! |---|---|
//! | [`calls`] | calls one at a time and 32 at once, direct and through the shim |
//! | [`pulls`] | a pull through five registries at 20 ms, and 200 pulls at once |
//! | [`resolution`] | resolving cold, remembered, and with a black hole, beside plain requests |
//! | [`cache`] | the node cache, beside docker-registry as a proxy and beside direct pulls |
//! | [`webhook`] | reviews of the admission webhook, over TLS and HTTP/2 |
//! | [`start`] | binary size, memory, time from exec to the first answer |
//! | [`report`] | rows, goals, the table and its JSON |

mod cache;
mod calls;
mod pulls;
mod report;
mod resolution;
mod start;
mod webhook;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use testkit::containerd::Containerd;
use testkit::fake_runtime::FakeRuntime;
use testkit::shim::{Options, Shim};
use testkit::tools::Tools;

use self::report::Report;
use crate::step::{cargo, need_root, step, target};

/// A part that can be measured alone.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Part {
    /// The admission webhook
    Webhook,
    /// The node cache
    Cache,
}

/// Runs everything, or one part; prints a table, or JSON. The first call builds the shim and an optimized client,
/// and runs that one. `smoke` takes a debug build and small sizes, to see that the bench itself works.
pub(crate) fn run(only: Option<Part>, json: bool, optimized: bool, smoke: bool) -> Result<()> {
    need_root("cargo xtask bench")?;
    if smoke {
        ensure!(
            matches!(only, Some(Part::Cache)),
            "--smoke is there for the cache's part: cargo xtask bench cache --smoke"
        );
        Tools::ensure().context("the programs that the bench runs")?;
        let build = ["build", "--locked", "--package", "image-cri-shim"];
        step(
            "build of the shim",
            "mend what the compiler names above",
            &mut cargo(&build),
        )?;
    } else if !optimized {
        return build_and_run(only, json);
    }
    // The client needs a core of its own beside the shim's; both are shared with the runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let profile = if smoke { "debug" } else { "release" };
    let binary = target().join(profile).join("image-cri-shim");
    // reqwest, in plain requests and pushes, wants to know even if it never speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut report = Report::default();
    let measured = runtime.block_on(async {
        match only {
            _ if smoke => cache::smoke(&mut report, &binary).await,
            Some(Part::Webhook) => webhook::measure(&mut report, &binary).await,
            Some(Part::Cache) => cache::measure(&mut report, &binary).await,
            None => measure(&mut report, binary).await,
        }
    });
    // What was measured before something failed is worth its table.
    if json {
        println!("{}", report.json());
    } else {
        println!("{}", report.table());
    }
    measured
}

fn build_and_run(only: Option<Part>, json: bool) -> Result<()> {
    Tools::ensure().context("the programs that the bench runs")?;
    let advice = "mend what the compiler names above";
    let shim = [
        "build",
        "--release",
        "--locked",
        "--package",
        "image-cri-shim",
    ];
    step("build of the shim", advice, &mut cargo(&shim))?;
    let client = [
        "build",
        "--profile",
        "bench-client",
        "--locked",
        "--package",
        "xtask",
    ];
    step("build of the bench", advice, &mut cargo(&client))?;
    let mut bench = Command::new(target().join("bench-client/xtask"));
    bench.args(["bench", "--optimized"]);
    if json {
        bench.arg("--json");
    }
    match only {
        Some(Part::Webhook) => bench.arg("webhook"),
        Some(Part::Cache) => bench.arg("cache"),
        None => &mut bench,
    };
    step("bench", "what it was doing is above", &mut bench)
}

/// A backend with 100 images, in a process of its own as a runtime is: a direct call then takes the
/// same way between processes as one through the shim. Prints its socket; ends with standard input.
pub(crate) fn backend() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let backend = FakeRuntime::start().await?;
        backend.record(false);
        backend.add_images(100);
        println!("{}", backend.socket().display());
        let (ended, wait) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
        let _ = wait.await;
        Ok(())
    })
}

/// The process that [`backend`] runs in. Ends with the handle.
struct Backend {
    process: Child,
    socket: PathBuf,
}

impl Backend {
    fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "--backend"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().context("just piped")?;
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self {
            process,
            socket: PathBuf::from(line.trim()),
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

async fn measure(report: &mut Report, binary: PathBuf) -> Result<()> {
    start::binary(report, &binary)?;

    eprintln!("\n== calls, in front of a backend with 100 images");
    let backend = Backend::start()?;
    start::exec(report, &binary, &backend.socket).await?;
    let shim = Shim::start("", Options::new(&binary, &backend.socket)).await?;
    report.value("idle RSS", start::mib(shim.rss_kib()?), "MB", Some(12.0));
    calls::measure(report, "fake", &backend.socket, &shim, calls::FAKE_IMAGE).await?;
    calls::many(&shim, 100_000).await?;
    report.value(
        "RSS after 100k calls",
        start::mib(shim.rss_kib()?),
        "MB",
        None,
    );
    eprintln!("\n== metrics and history, on and off");
    let options = Options::new(&binary, &backend.socket).arg("--no-telemetry");
    let off = Shim::start("", options).await?;
    calls::telemetry(report, &off, &shim).await?;
    drop((shim, off));

    eprintln!("\n== calls, in front of containerd");
    let containerd = Containerd::start().await?;
    pulls::calls(report, &binary, &containerd).await?;
    eprintln!("\n== pulls");
    pulls::five_registries(report, &binary, &containerd).await?;
    pulls::two_hundred(report, &binary, &containerd).await?;
    eprintln!("\n== resolution");
    resolution::measure(report, &binary).await?;
    eprintln!("\n== the admission webhook");
    webhook::measure(report, &binary).await?;
    eprintln!("\n== the node cache");
    cache::measure(report, &binary).await
}
