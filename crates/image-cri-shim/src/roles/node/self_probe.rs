//! Whether a shim serves: it is called as kubelet calls it.

use std::path::Path;
use std::time::Duration;

use cri::inspect;
use cri::upstream::Upstream;
use tokio::time::timeout;

/// Part of the time for a probe that each of its calls gets.
const CALLS: u32 = 3;

/// Makes one CRI call to the `shim`. Where no answer comes back it asks who is to blame: a runtime that answers nobody
/// is no fault of the shim.
pub(super) async fn answers(shim: &Upstream, runtime: &Path, limit: Duration) -> bool {
    let each = limit / CALLS;
    if matches!(timeout(each, cri::runtime_version(shim)).await, Ok(Ok(_))) {
        return true;
    }
    let straight = Upstream::new(runtime);
    let runtime_answers = matches!(
        timeout(each, cri::runtime_version(&straight)).await,
        Ok(Ok(_))
    );
    // Its own service needs no runtime. Any answer will do, so nothing is asked.
    let answers = timeout(each, inspect::ask(shim, "Ping", b"{}")).await;
    !runtime_answers && matches!(answers, Ok(Ok(_)))
}
