use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cluster::Places;

fn kubeconfig(server: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://{server}'}}}}]\nusers: [{{name: u, user: {{token: hunter2}}}}]\n"
    )
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn server(places: &Places) -> (Option<String>, Vec<String>) {
    let discovered = places.discover().await;
    let url = discovered
        .found
        .map(|(config, _)| config.cluster_url.to_string());
    (url, discovered.warnings)
}

#[tokio::test]
async fn every_place_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let places = Places {
        service: Some("10.96.0.1:443".to_owned()),
        service_account: at("sa"),
        kubeconfig: vec![at("env-1"), at("env-2")],
        files: vec![at("admin.conf"), at("k3s.yaml"), at("home/.kube/config")],
    };
    assert_eq!(server(&places).await, (None, vec![]));
    // From the last to the first: each new one wins over those that are there already.
    for name in ["home/.kube/config", "k3s.yaml", "admin.conf", "env-2"] {
        write(&at(name), &kubeconfig(&format!("{}.example", name.len())));
        let (url, warnings) = server(&places).await;
        assert_eq!(url.unwrap(), format!("https://{}.example/", name.len()));
        assert_eq!(warnings, Vec::<String>::new());
    }
    // Of a list, the first file's values win.
    write(&at("env-1"), &kubeconfig("first.example"));
    assert_eq!(server(&places).await.0.unwrap(), "https://first.example/");
    write(&at("sa/token"), "t");
    assert_eq!(server(&places).await.0.unwrap(), "https://10.96.0.1:443/");
}

#[tokio::test]
async fn what_can_not_be_used_is_passed_over_with_a_warning_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let bad = [
        ("garbage", "token: 'hunter2\n: ["),
        ("empty", ""),
        (
            "no-context",
            "current-context: nowhere\nusers: [{name: u, user: {token: hunter2}}]",
        ),
        (
            "bad-ca",
            &kubeconfig("x").replace("server:", "certificate-authority-data: '!hunter2', server:"),
        ),
    ];
    for (name, text) in bad {
        write(&at(name), text);
    }
    write(&at("good"), &kubeconfig("good.example"));
    let mut files: Vec<PathBuf> = bad.iter().map(|(name, _)| at(name)).collect();
    files.extend([at("missing"), at("good")]);
    let places = Places {
        service: None,
        service_account: at("sa"),
        kubeconfig: vec![at("garbage"), PathBuf::new()],
        files,
    };
    let (url, warnings) = server(&places).await;
    assert_eq!(url.unwrap(), "https://good.example/");
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(
        warnings
            .iter()
            .all(|w| w.starts_with("passing over the kubeconfig ")),
        "{warnings:#?}"
    );
    assert!(!warnings.concat().contains("hunter2"), "{warnings:#?}");
}

#[test]
fn what_the_environment_names() {
    let with = |pairs: &'static [(&'static str, &'static str)]| {
        Places::from_variables(&move |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    };
    let bare = with(&[]);
    assert_eq!(bare.service, None);
    assert_eq!(bare.kubeconfig, Vec::<PathBuf>::new());
    assert_eq!(
        bare.files,
        [
            "/etc/kubernetes/admin.conf",
            "/etc/rancher/k3s/k3s.yaml",
            "/root/.kube/config"
        ]
        .map(PathBuf::from)
    );
    let full = with(&[
        ("HOME", "/home/me"),
        ("KUBECONFIG", "/a:/b"),
        ("KUBERNETES_SERVICE_HOST", "fd00::1"),
        ("KUBERNETES_SERVICE_PORT", "6443"),
    ]);
    assert_eq!(full.service.unwrap(), "[fd00::1]:6443");
    assert_eq!(full.kubeconfig, ["/a", "/b"].map(PathBuf::from));
    assert_eq!(full.files[2], Path::new("/home/me/.kube/config"));
}
