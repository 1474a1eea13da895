use super::*;
use crate::diff::unified;
use crate::payload::Payload;
use crate::transaction::{self, changes, install, uninstall};
use crate::trees::{self, Tree};

fn wire(tree: &Tree) -> Vec<Wanted> {
    let node = Node::look(&tree.root()).unwrap();
    wanted(&tree.root(), &node, Scope::Images).unwrap()
}

/// The diff without the drop-in that only orders the units.
fn diff(tree: &Tree) -> String {
    let wanted = wire(tree);
    changes(&tree.root(), &wanted)
        .unwrap()
        .iter()
        .map(unified)
        .filter(|text| !text.contains("[Unit]") || text.contains("ExecStart"))
        .collect()
}

#[test]
fn each_kind_is_recognised_with_its_runtime() {
    for (tree, kind, unit, runtime) in [
        (
            trees::kubeadm_deb(),
            Kind::Kubeadm,
            "kubelet.service",
            "/run/containerd/containerd.sock",
        ),
        (
            trees::kubeadm_rpm(),
            Kind::Kubeadm,
            "kubelet.service",
            "/var/run/crio/crio.sock",
        ),
        (
            trees::k3s(),
            Kind::K3s,
            "k3s-agent.service",
            "/run/k3s/containerd/containerd.sock",
        ),
        (
            trees::rke2(),
            Kind::Rke2,
            "rke2-agent.service",
            "/run/k3s/containerd/containerd.sock",
        ),
        (
            trees::k0s(),
            Kind::K0s,
            "k0sworker.service",
            "/run/k0s/containerd.sock",
        ),
        (
            trees::bare(),
            Kind::Kubelet,
            "kubelet.service",
            "/var/run/crio/crio.sock",
        ),
        (
            trees::kubeadm_132(),
            Kind::Kubeadm,
            "kubelet.service",
            "/run/containerd/containerd.sock",
        ),
        (
            trees::crio(),
            Kind::Kubelet,
            "kubelet.service",
            "/var/run/crio/crio.sock",
        ),
        (
            trees::cri_dockerd(),
            Kind::Kubeadm,
            "kubelet.service",
            "/var/run/cri-dockerd.sock",
        ),
        (
            trees::predecessor(),
            Kind::Kubeadm,
            "kubelet.service",
            "/run/containerd/containerd.sock",
        ),
    ] {
        let node = Node::look(&tree.root()).unwrap();
        assert_eq!((node.kind, node.unit.as_str()), (kind, unit));
        assert_eq!(node.runtime, Path::new(runtime), "{kind}");
        assert_eq!(
            node.predecessor,
            kind == Kind::Kubeadm && tree.root().exists("/usr/bin/image-cri-shim")
        );
    }
    let nothing = Tree::new(&[]);
    let error = Node::look(&nothing.root()).unwrap_err().to_string();
    assert!(error.contains("kubelet.service"), "{error}");
    let both = trees::k3s();
    both.write(
        "/etc/systemd/system/kubelet.service",
        "[Service]\nExecStart=/usr/bin/kubelet\n",
    );
    let error = Node::look(&both.root()).unwrap_err().to_string();
    assert!(
        error.contains("k3s-agent.service, kubelet.service"),
        "{error}"
    );
}

#[test]
fn the_wiring_of_each_kind() {
    assert_eq!(
        diff(&trees::kubeadm_deb()),
        "--- /etc/default/kubelet\n+++ /etc/default/kubelet\n@@ -1 +1 @@\n-KUBELET_EXTRA_ARGS=\n+KUBELET_EXTRA_ARGS=\"--image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
    );
    assert!(diff(&trees::kubeadm_rpm()).contains(
        "+KUBELET_EXTRA_ARGS=\"--v=2 --image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
    ));
    assert_eq!(
        diff(&trees::k3s()),
        "--- /dev/null\n+++ /etc/rancher/k3s/config.yaml.d/90-image-cri-shim.yaml\n@@ -0,0 +1,2 @@\n+# kubelet's image service; written by image-cri-shim install\n+image-service-endpoint: \"unix:///run/image-cri-shim.sock\"\n"
    );
    assert!(diff(&trees::rke2()).contains(
        "+\"kubelet-arg+\":\n+  - \"image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
    ));
    assert!(diff(&trees::k0s()).contains(
        "+ExecStart=\n+ExecStart=/usr/local/bin/k0s worker --token-file=/etc/k0s/token --kubelet-extra-args=\"--max-pods=200\" --kubelet-extra-args=\"--max-pods=200 --image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
    ));
    assert!(diff(&trees::bare()).contains(
        "+ExecStart=/opt/bin/kubelet --config=/etc/kubelet.yaml  --container-runtime-endpoint unix:///var/run/crio/crio.sock --image-service-endpoint=unix:///run/image-cri-shim.sock\n"
    ));
    assert_eq!(diff(&trees::predecessor()), "", "its wiring is ours");
}

#[test]
fn quoted_continued_and_earlier_forms_give_one_valid_line() {
    for (before, after) in [
        (
            "KUBELET_EXTRA_ARGS=--v=2\n",
            "KUBELET_EXTRA_ARGS=\"--v=2 --image",
        ),
        (
            "KUBELET_EXTRA_ARGS='--v=2'\n",
            "KUBELET_EXTRA_ARGS=\"--v=2 --image",
        ),
        (
            "KUBELET_EXTRA_ARGS=\"--v=2 \\\n  --a=b\"\nX=1\n",
            "KUBELET_EXTRA_ARGS=\"--v=2   --a=b --image",
        ),
        ("", "KUBELET_EXTRA_ARGS=\"--image"),
        (
            "KUBELET_EXTRA_ARGS=--a=1\nKUBELET_EXTRA_ARGS=--b=2",
            "KUBELET_EXTRA_ARGS=\"--b=2 --image",
        ),
        (
            "KUBELET_EXTRA_ARGS=\"--l='a=\\\"b\\\"'\"\n",
            "KUBELET_EXTRA_ARGS=\"--l='a=\\\"b\\\"' --image",
        ),
    ] {
        let tree = trees::kubeadm_deb();
        tree.write("/etc/default/kubelet", before);
        let wanted = wire(&tree);
        install(&tree.root(), &wanted).unwrap();
        let text = tree.text("/etc/default/kubelet");
        assert!(text.contains(after), "{before:?}: {text}");
        assert_eq!(text.matches("image-service-endpoint").count(), 1, "{text}");
        // The whole is read back, and is enough.
        let value = env_file::value(&text, kubelet::EXTRA_ARGS).unwrap();
        assert_eq!(flags::values(&value, IMAGE_FLAG), [endpoint()], "{text}");
        assert_eq!(changes(&tree.root(), &wire(&tree)).unwrap(), []);
    }
    for there in [
        "KUBELET_EXTRA_ARGS=--image-service-endpoint unix:///var/run/image-cri-shim.sock\n",
        "KUBELET_EXTRA_ARGS=\"--image-service-endpoint=/run/image-cri-shim.sock --v=2\"\n",
    ] {
        let tree = trees::kubeadm_deb();
        tree.write("/etc/default/kubelet", there);
        assert_eq!(diff(&tree), "", "{there}");
    }
}

#[test]
fn another_image_service_and_stargz_are_refused() {
    let tree = trees::kubeadm_deb();
    tree.write(
        "/etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--image-service-endpoint=unix:///run/containerd-stargz-grpc/containerd-stargz-grpc.sock\n",
    );
    let node = Node::look(&tree.root()).unwrap();
    let error = wanted(&tree.root(), &node, Scope::Images)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("KUBELET_EXTRA_ARGS in /etc/default/kubelet"),
        "{error}"
    );

    for (path, text) in [
        ("/etc/rancher/k3s/config.yaml", "snapshotter: stargz\n"),
        (
            "/etc/rancher/k3s/config.yaml.d/10.yaml",
            "snapshotter: \"stargz\"\n",
        ),
        (
            "/etc/systemd/system/k3s-agent.service",
            "[Service]\nExecStart=/usr/local/bin/k3s agent --snapshotter stargz\n",
        ),
    ] {
        let tree = trees::k3s();
        tree.write(path, text);
        let node = Node::look(&tree.root()).unwrap();
        let error = wanted(&tree.root(), &node, Scope::Images)
            .unwrap_err()
            .to_string();
        assert!(error.contains("stargz"), "{error}");
    }
    let tree = trees::k3s();
    let node = Node::look(&tree.root()).unwrap();
    assert!(wanted(&tree.root(), &node, Scope::Both).is_err());
}

#[test]
fn kubelet_is_asked_where_it_says_that_it_is_well() {
    let healthz = |tree: &Tree| Node::look(&tree.root()).unwrap().healthz;
    let at = |text: &str| Some(text.parse().unwrap());
    for (_, tree) in trees::all() {
        assert_eq!(healthz(&tree()), at("127.0.0.1:10248"));
    }
    let tree = trees::bare();
    tree.write(
        "/etc/kubelet.yaml",
        "healthzBindAddress: ::1\nhealthzPort: 9999\n",
    );
    assert_eq!(healthz(&tree), at("[::1]:9999"));
    tree.write(
        "/etc/kubelet.yaml",
        "healthzBindAddress: 0.0.0.0\nhealthzPort: 0\n",
    );
    assert_eq!(healthz(&tree), None);
    let tree = trees::kubeadm_deb();
    tree.write(
        "/var/lib/kubelet/config.yaml",
        "healthzBindAddress: 0.0.0.0\nhealthzPort: 9999\n",
    );
    assert_eq!(healthz(&tree), at("127.0.0.1:9999"));
    tree.write(
        "/etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--healthz-port=9998\n",
    );
    assert_eq!(healthz(&tree), at("127.0.0.1:9998"));
}

#[test]
fn a_k3s_without_the_setting_is_refused() {
    let tree = trees::k3s();
    tree.write("/usr/local/bin/k3s", "\u{7f}ELF\0v1.27.6+k3s1\0");
    let node = Node::look(&tree.root()).unwrap();
    let error = wanted(&tree.root(), &node, Scope::Images)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "k3s 1.27.6 has no setting for kubelet's image service; it needs 1.25.15,"
        ),
        "{error}"
    );
    tree.write("/usr/local/bin/k3s", "\u{7f}ELF\0v1.27.7+k3s1\0");
    assert!(!wire(&tree).is_empty());
}

#[test]
fn both_endpoints_where_that_is_wanted() {
    let tree = trees::kubeadm_deb();
    let node = Node::look(&tree.root()).unwrap();
    let both = wanted(&tree.root(), &node, Scope::Both).unwrap();
    install(&tree.root(), &both).unwrap();
    assert_eq!(
        tree.text("/etc/default/kubelet"),
        "KUBELET_EXTRA_ARGS=\"--image-service-endpoint=unix:///run/image-cri-shim.sock --container-runtime-endpoint=unix:///run/image-cri-shim.sock\"\n"
    );
}

/// `kubeadm upgrade node` and a newer package write kubelet's own files anew.
#[test]
fn kubeadm_writes_its_files_anew_and_the_wiring_stays() {
    let kubeadm = trees::all()
        .into_iter()
        .filter(|(_, tree)| Node::look(&tree().root()).unwrap().kind == Kind::Kubeadm);
    for (name, tree) in kubeadm {
        let tree = tree();
        install(&tree.root(), &wire(&tree)).unwrap();
        let socket = Node::look(&tree.root()).unwrap().runtime;
        let socket = socket.display();
        for (path, text) in [
            (
                "/var/lib/kubelet/config.yaml",
                "containerRuntimeEndpoint: \"\"\nimageServiceEndpoint: \"\"\nkind: KubeletConfiguration\n".to_owned(),
            ),
            (
                "/var/lib/kubelet/instance-config.yaml",
                format!("containerRuntimeEndpoint: unix://{socket}\nkind: KubeletConfiguration\n"),
            ),
            (
                "/var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"\"\n".to_owned(),
            ),
            (
                "/usr/lib/systemd/system/kubelet.service",
                "[Service]\nExecStart=/usr/bin/kubelet\n".to_owned(),
            ),
        ] {
            tree.write(path, &text);
        }
        let node = Node::look(&tree.root()).unwrap();
        let (endpoint, place) = node.image_endpoint.clone().unwrap();
        assert!(
            node::is_ours(&endpoint) && place.starts_with("KUBELET_EXTRA_ARGS in /etc/"),
            "{name}: {place}"
        );
        assert_eq!(node.runtime.display().to_string(), socket.to_string());
        assert_eq!(changes(&tree.root(), &wire(&tree)).unwrap(), [], "{name}");
    }
}

/// The whole of what kubelet and systemd read, as it was and as it is.
#[test]
fn the_exact_diff_of_each_kind() {
    for (name, tree) in trees::all() {
        let tree = tree();
        let changes = changes(&tree.root(), &wire(&tree)).unwrap();
        let diff: String = changes.iter().map(unified).collect();
        insta::assert_snapshot!(name, diff);
    }
}

#[test]
fn a_variable_that_is_one_argument_gets_no_second_flag() {
    let tree = trees::crio();
    let path = "/usr/lib/systemd/system/kubelet.service";
    let unit = tree
        .text(path)
        .replace("$KUBELET_EXTRA_ARGS", "${KUBELET_EXTRA_ARGS}");
    tree.write(path, &unit);
    let diff = diff(&tree);
    assert!(
        diff.contains(
            "+ExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml ${KUBELET_EXTRA_ARGS} --image-service-endpoint=unix:///run/image-cri-shim.sock\n"
        ),
        "{diff}"
    );
    assert!(!diff.contains("/etc/sysconfig/kubelet"), "{diff}");
}

#[test]
fn install_twice_is_once_and_uninstall_leaves_the_tree_as_it_was() {
    for (_, tree) in trees::all() {
        let tree = tree();
        tree.mark("/etc/default/kubelet");
        tree.mark("/etc/sysconfig/kubelet");
        let before = tree.snapshot();
        assert_ne!(install(&tree.root(), &wire(&tree)).unwrap(), []);
        let wired = tree.snapshot();
        assert_eq!(install(&tree.root(), &wire(&tree)).unwrap(), []);
        assert_eq!(tree.snapshot(), wired);
        assert_ne!(transaction::undo_changes(&tree.root()).unwrap(), []);
        let undone = uninstall(&tree.root()).unwrap();
        assert_eq!((undone.left, undone.still_wired), (vec![], vec![]));
        assert_eq!(tree.snapshot(), before);
        assert_eq!(
            uninstall(&tree.root()).unwrap().restored,
            Vec::<PathBuf>::new()
        );
        assert_eq!(tree.snapshot(), before);
    }
}

/// The last file of variables takes the place of all before it.
#[test]
fn the_file_that_sets_the_variable_is_the_one_that_is_changed() {
    let with_proxy = |proxy: &str| {
        let tree = trees::kubeadm_deb();
        tree.write(
            "/etc/default/kubelet",
            "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1 --cloud-provider=external\n",
        );
        tree.write(
            "/etc/systemd/system/kubelet.service.d/http-proxy.conf",
            &format!("[Service]\nEnvironmentFile=-{proxy}\n"),
        );
        tree
    };
    let all = "--node-ip=10.0.0.1 --cloud-provider=external --image-service-endpoint=unix:///run/image-cri-shim.sock";
    let tree = with_proxy("/etc/environment");
    tree.write("/etc/environment", "HTTPS_PROXY=http://proxy:3128\n");
    install(&tree.root(), &wire(&tree)).unwrap();
    assert_eq!(
        tree.text("/etc/default/kubelet"),
        format!("KUBELET_EXTRA_ARGS=\"{all}\"\n")
    );
    assert_eq!(
        tree.text("/etc/environment"),
        "HTTPS_PROXY=http://proxy:3128\n"
    );
    assert_eq!(changes(&tree.root(), &wire(&tree)).unwrap(), []);

    // Where the later one sets it too, kubelet never sees the first.
    tree.write("/etc/environment", "KUBELET_EXTRA_ARGS=--v=4\n");
    assert_eq!(Node::look(&tree.root()).unwrap().image_endpoint, None);
    install(&tree.root(), &wire(&tree)).unwrap();
    assert_eq!(
        tree.text("/etc/environment"),
        "KUBELET_EXTRA_ARGS=\"--v=4 --image-service-endpoint=unix:///run/image-cri-shim.sock\"\n"
    );
    assert_eq!(
        tree.text("/etc/default/kubelet"),
        "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1 --cloud-provider=external\n",
        "what is not needed is put back"
    );

    // Nobody knows which files those are: the command itself is certain.
    let tree = with_proxy("/etc/kubelet.d/*.env");
    let diff = diff(&tree);
    assert!(!diff.contains("/etc/default/kubelet"), "{diff}");
    assert!(
        diff.contains("$KUBELET_EXTRA_ARGS --image-service-endpoint=unix:"),
        "{diff}"
    );
}

/// No file sets the variable, and the only ones are somebody else's.
#[test]
fn a_file_that_is_not_kubelet_s_gets_no_arguments_of_kubelet() {
    let tree = trees::kubeadm_deb();
    tree.write(
        "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        "[Service]\nEnvironment=KUBELET_EXTRA_ARGS=--v=2\nEnvironmentFile=-/etc/environment\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS\n",
    );
    let diff = diff(&tree);
    assert!(!diff.contains("/etc/environment"), "{diff}");
    assert!(
        diff.contains("+ExecStart=/usr/bin/kubelet $KUBELET_EXTRA_ARGS --image-service"),
        "{diff}"
    );
}

/// `--both` hides the runtime's endpoint behind ours; a second run must find it all the same.
#[test]
fn a_second_run_with_both_endpoints_finds_the_same_runtime() {
    let own = "/run/k8s/containerd.sock";
    let told = format!("--container-runtime-endpoint=unix://{own}");
    let flags = |tree: &Tree, text: &str| {
        tree.write("/var/lib/kubelet/kubeadm-flags.env", text);
    };
    let kubeadm = trees::kubeadm_deb();
    flags(&kubeadm, &format!("KUBELET_KUBEADM_ARGS=\"{told}\"\n"));
    let in_extra_args = trees::kubeadm_deb();
    flags(&in_extra_args, "");
    in_extra_args.write(
        "/etc/default/kubelet",
        &format!("KUBELET_EXTRA_ARGS=\"{told}\"\n"),
    );
    let bare = trees::bare();
    let unit = "/etc/systemd/system/kubelet.service";
    bare.write(
        unit,
        &bare.text(unit).replace("/var/run/crio/crio.sock", own),
    );
    for (name, tree) in [
        ("kubeadm", kubeadm),
        ("extra", in_extra_args),
        ("bare", bare),
    ] {
        let root = tree.root();
        for _ in 0..2 {
            let node = Node::look(&root).unwrap();
            assert_eq!(node.runtime, Path::new(own), "{name}");
            install(&root, &wanted(&root, &node, Scope::Both).unwrap()).unwrap();
            assert!(Node::look(&root).unwrap().both, "{name}");
        }
        uninstall(&root).unwrap();
        assert!(!Node::look(&root).unwrap().both, "{name}");
    }
}

/// Kubelet names nothing but us: what an earlier run has found counts, before any guess.
#[test]
fn the_runtime_of_an_earlier_run_is_not_guessed_anew() {
    let tree = trees::kubeadm_deb();
    tree.write("/var/lib/kubelet/kubeadm-flags.env", "");
    tree.write(
        "/etc/default/kubelet",
        "KUBELET_EXTRA_ARGS=--container-runtime-endpoint=unix:///run/image-cri-shim.sock\n",
    );
    tree.write(
        "/etc/default/image-cri-shim",
        "IMAGE_CRI_SHIM_RUNTIME=/run/k8s/containerd.sock\n",
    );
    let node = Node::look(&tree.root()).unwrap();
    assert_eq!(node.runtime, Path::new("/run/k8s/containerd.sock"));
    assert!(
        node.runtime_from.contains("/etc/default/image-cri-shim"),
        "{}",
        node.runtime_from
    );
    tree.write("/etc/image-cri-shim.yaml", "cri: /run/other.sock\n");
    let node = Node::look(&tree.root()).unwrap();
    assert_eq!(node.runtime, Path::new("/run/other.sock"));
}

/// Two runtimes' sockets, of which somebody has named one with `--runtime`: nobody has to say it twice.
#[test]
fn the_runtime_that_was_named_is_known_to_later_runs() {
    let tree = trees::kubeadm_deb();
    tree.write("/var/lib/kubelet/kubeadm-flags.env", "");
    tree.write("/run/containerd/containerd.sock", "");
    tree.write("/var/run/crio/crio.sock", "");
    let root = tree.root();
    let error = Node::look(&root).unwrap_err().to_string();
    assert!(
        error.contains("several container runtimes") && error.contains("--runtime"),
        "{error}"
    );
    let everything = |node: &Node| {
        let payload = Payload {
            program: b"program".to_vec(),
            prefix: "/usr/local".into(),
            config: None,
        };
        let mut all = payload.wanted(&root, node).unwrap();
        all.extend(wanted(&root, node, Scope::Images).unwrap());
        all
    };
    let named = Path::new("/var/run/crio/crio.sock");
    let node = Node::look_with(&root, Some(named)).unwrap();
    install(&root, &everything(&node)).unwrap();

    let node = Node::look(&root).unwrap();
    assert_eq!(node.runtime, named);
    assert!(
        node.runtime_from.contains("/etc/default/image-cri-shim"),
        "{}",
        node.runtime_from
    );
    assert_eq!(install(&root, &everything(&node)).unwrap(), []);
    uninstall(&root).unwrap();
    assert!(Node::look(&root).is_err());
}

#[test]
fn k3s_with_docker_has_its_runtime_elsewhere() {
    let dockerd = Path::new("/run/k3s/cri-dockerd/cri-dockerd.sock");
    let containerd = Path::new("/run/k3s/containerd/containerd.sock");
    let config = "/etc/rancher/k3s/config.yaml";
    for (file, text, runtime) in [
        (config, "docker: true\n", dockerd),
        (
            config,
            "docker: \"true\"\ncontainer-runtime-endpoint: /x\n",
            dockerd,
        ),
        (config, "docker: false\n", containerd),
        (
            "/etc/rancher/k3s/config.yaml.d/10.yaml",
            "docker: true\n",
            dockerd,
        ),
        (
            "/etc/systemd/system/k3s-agent.service",
            "[Service]\nExecStart=/usr/local/bin/k3s agent --docker\n",
            dockerd,
        ),
    ] {
        let tree = trees::k3s();
        tree.write(file, text);
        let node = Node::look(&tree.root()).unwrap();
        assert_eq!(node.runtime, runtime, "{file}: {text}");
        assert_eq!(
            node.runtime_from.contains(file),
            runtime == dockerd && file.ends_with("yaml")
        );
    }
}

#[test]
fn a_socket_that_somebody_names_is_a_path() {
    for named in [
        "/run/crio/crio.sock",
        "unix:///run/crio/crio.sock",
        "unix:/run/crio/crio.sock",
    ] {
        assert_eq!(
            node::runtime_socket(named).unwrap(),
            Path::new("/run/crio/crio.sock")
        );
    }
    for (named, why) in [
        ("crio.sock", "absolute path"),
        ("tcp://127.0.0.1:1234", "absolute path"),
        ("", "absolute path"),
        ("unix:///var/run/image-cri-shim.sock", "own socket"),
    ] {
        let error = node::runtime_socket(named).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
