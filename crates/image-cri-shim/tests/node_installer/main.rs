//! Installers on five nodes: each a systemd with a network of its own, a kubelet's unit as kubeadm leaves it, and a Pod
//! that runs the released binary, before one API server and one real containerd.
//!
//! A program of its own, because it is also the kubelet that the nodes start. That one does what matters here as a real
//! one does: it exits at once when its socket is not there, keeps its connection, calls the image service again and
//! again, and serves /healthz.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

mod five;
mod kubelet;
mod node;
mod world;

fn main() {
    let mut arguments = std::env::args();
    if arguments.next().is_some_and(|name| name == kubelet::PATH) {
        kubelet::run(arguments);
        return;
    }
    // What test runners ask of a program before they run it.
    if arguments.any(|argument| argument == "--list") {
        println!("five_nodes: test");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(five::nodes());
    println!("test five_nodes ... ok");
}
