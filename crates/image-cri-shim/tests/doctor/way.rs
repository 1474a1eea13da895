//! Kubelet is not led to the shim.

use crate::world::{FLAG, World};

#[tokio::test]
async fn kubeadm_has_written_the_file_anew() {
    let world = World::running().await;
    world.write("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=\n");
    // And more is broken: lost wiring is named first all the same.
    world.unit(
        "image-cri-shim-bypass.socket",
        &[("ActiveState", "inactive")],
    );
    let page = world.doctor().await;
    page.bad(
        "wiring",
        "the wiring is lost: /etc/default/kubelet was written anew",
        "image-cri-shim install --restart-kubelet",
    );
}

#[tokio::test]
async fn kubelet_was_not_restarted() {
    let world = World::running().await;
    world.run_kubelet("--config=/var/lib/kubelet/config.yaml --healthz-port=0");
    let page = world.doctor().await;
    page.bad(
        "kubelet.process",
        "(pid 812) was started before it was led to the shim",
        "systemctl restart kubelet.service",
    );
}

#[tokio::test]
async fn kubelet_uses_another_image_service() {
    let world = World::running().await;
    let other = FLAG.replace("image-cri-shim.sock", "stargz.sock");
    world.write(
        "/etc/default/kubelet",
        &format!("KUBELET_EXTRA_ARGS={other}\n"),
    );
    let page = world.doctor().await;
    page.bad(
        "wiring",
        "another image service already: unix:///run/stargz.sock",
        "take image-service-endpoint out of KUBELET_EXTRA_ARGS in /etc/default/kubelet",
    );
}

#[tokio::test]
async fn no_kubelet_runs() {
    let world = World::running().await;
    world.write("/proc/812/cmdline", "sleep\0");
    let page = world.doctor().await;
    page.bad(
        "kubelet.process",
        "no kubelet runs",
        "systemctl start kubelet.service",
    );
}

#[tokio::test]
async fn kubelet_says_itself_that_it_does_not_dial_the_shim() {
    let world = World::running().await;
    // Its command line says otherwise.
    world.run_kubelet(&format!(
        "{FLAG} --healthz-port=0 --hostname-override=Node-7"
    ));
    let told = serde_json::json!({"kubeletconfig": {
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "imageServiceEndpoint": "",
    }});
    world
        .api_server
        .put("/api/v1/nodes/node-7/proxy/configz", told);
    let page = world.doctor().await;
    page.bad(
        "kubelet.configz",
        "kubelet says at /configz that it does not dial the shim",
        "systemctl restart kubelet.service",
    );
}
