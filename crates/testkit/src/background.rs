//! One runtime for everything that testkit serves in-process.
//!
//! Its servers must go on while the test that uses them blocks its own current-thread runtime, and a
//! server that several tests share must outlive the runtime of the test that started it.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// The handle of the background runtime, which is started at the first use and never ends.
pub(crate) fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("testkit")
                .enable_all()
                .build()
                .expect("the background runtime of testkit can be started")
        })
        .handle()
}
