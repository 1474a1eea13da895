//! The container runtime that was found, or named: whether it is one.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cri::upstream::Upstream;

use crate::commands::daemon::one_thread;
use crate::commands::terminal;

/// How long it may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Says so where no runtime answers on `socket`: shim and bypass would both lead nowhere. Nothing is refused for it, since
/// a runtime may start later than this.
pub(super) fn warn_where_none_answers(socket: &Path) {
    if let Err(error) = ask(socket) {
        terminal::say(&format!(
            "warning: no container runtime answers at {}: {error:#}. The shim and its bypass lead there; if kubelet's runtime is another, name its socket with --runtime",
            socket.display()
        ));
    }
}

fn ask(socket: &Path) -> anyhow::Result<()> {
    one_thread()?.block_on(async {
        let upstream = Upstream::new(socket);
        tokio::time::timeout(ANSWER_TIMEOUT, cri::runtime_version(&upstream))
            .await
            .with_context(|| format!("it is silent for {ANSWER_TIMEOUT:?}"))??;
        Ok(())
    })
}
