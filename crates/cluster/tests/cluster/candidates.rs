use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cluster::KubeconfigCandidates;

use crate::world::only;

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

async fn server(places: &KubeconfigCandidates) -> (Option<String>, Vec<String>) {
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
    let places = KubeconfigCandidates {
        service: Some("10.96.0.1:443".to_owned()),
        service_account: at("sa"),
        kubeconfig: vec![at("env-1"), at("env-2")],
        files: vec![at("admin.conf"), at("k3s.yaml"), at("home/.kube/config")],
        ..KubeconfigCandidates::default()
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
    let places = KubeconfigCandidates {
        kubeconfig: vec![at("garbage"), PathBuf::new()],
        files,
        ..KubeconfigCandidates::default()
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
        KubeconfigCandidates::from_variables(&move |name| {
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

/// kubeconfigs as people and installers write them; kubectl takes each.
#[tokio::test]
async fn what_kubectl_reads_we_read() {
    use testkit::fake_api_server::FakeApiServer;
    let server = FakeApiServer::start().unwrap();
    server.apply_config_map("ours: true");
    let plain: serde_json::Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    let ca = plain["clusters"][0]["cluster"]["certificate-authority-data"]
        .as_str()
        .unwrap();
    let (token, address) = (server.token(), server.address());
    let kubeconfig = |ca: &str, user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters:\n- name: k\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {ca}\n\
             users:\n- name: u\n  user: {user}\n"
        )
    };
    let lines = |indent: &str| {
        let chunks: Vec<_> = ca
            .as_bytes()
            .chunks(64)
            .map(|c| String::from_utf8_lossy(c))
            .collect();
        chunks.join(&format!("\n{indent}"))
    };
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("token"), &format!("{token}\n"));
    let inline = format!("{{token: {token}}}");
    let literal = format!("|\n      {}", lines("      "));
    let folded = format!(">-\n      {}", lines("      "));
    let utf16 = |text: &str| {
        let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let with_mark = |text: String| [b"\xEF\xBB\xBF".as_slice(), text.as_bytes()].concat();
    for (case, bytes) in [
        ("plain", kubeconfig(ca, &inline).into_bytes()),
        ("literal", kubeconfig(&literal, &inline).into_bytes()),
        ("folded", kubeconfig(&folded, &inline).into_bytes()),
        (
            "over lines",
            kubeconfig(&lines("      "), &inline).into_bytes(),
        ),
        (
            "a repeated key",
            kubeconfig(ca, &format!("{{token: old, token: {token}}}")).into_bytes(),
        ),
        (
            "a token file",
            kubeconfig(ca, "{tokenFile: token}").into_bytes(),
        ),
        (
            "the file wins",
            kubeconfig(ca, "{tokenFile: token, token: old}").into_bytes(),
        ),
        (
            "no such file",
            kubeconfig(ca, &format!("{{tokenFile: nowhere, token: {token}}}")).into_bytes(),
        ),
        ("a byte order mark", with_mark(kubeconfig(ca, &inline))),
        ("UTF-16", utf16(&kubeconfig(ca, &inline))),
    ] {
        let file = dir.path().join("config");
        std::fs::write(&file, bytes).unwrap();
        let clients = cluster::ClientProvider::new(only(file));
        let read = cluster::read_config_map(&clients).await;
        let text = read.unwrap_or_else(|failure| panic!("{case}: {failure}"));
        assert_eq!(text.unwrap().text.as_deref(), Some("ours: true"), "{case}");
    }
}
