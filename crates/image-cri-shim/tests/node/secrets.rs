//! Nothing that can be looked at shows a credential.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use testkit::cri_api::AuthConfig;
use testkit::fake_registry::FakeRegistry;
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::{Options, Shim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::world::BINARY;

/// User names and passwords of everything in this test. None is part of any other text in it.
const SECRETS: [&str; 10] = [
    "inlineuser",
    "Inline-Pw1",
    "urluser",
    "Url-Pw2",
    "envuser",
    "Env-Pw3",
    "fileuser",
    "File-Pw4",
    "kubeletuser",
    "Kubelet-Pw5",
];

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn command(shim: &Shim, args: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.arg("-f").arg(shim.config_file()).args(args);
    // For the commands that read the config themselves.
    command.env("TOKEN", "envuser:Env-Pw3");
    let output = command.output().await.unwrap();
    let (out, err) = (output.stdout, output.stderr);
    String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err)
}

#[tokio::test]
async fn no_credential_is_in_anything_that_is_shown() {
    let image = Image::new("secrets");
    let registries: Vec<FakeRegistry> = ["inline", "url", "env", "file"]
        .map(|_| FakeRegistry::start().unwrap())
        .into();
    let users = [
        ("inlineuser", "Inline-Pw1"),
        ("urluser", "Url-Pw2"),
        ("envuser", "Env-Pw3"),
        ("fileuser", "File-Pw4"),
    ];
    for (registry, (user, password)) in registries.iter().zip(users) {
        registry.require_basic(user, password);
    }
    registries[3].add(&image, "team/app", "1");
    let dir = tempfile::tempdir().unwrap();
    let auth_file = dir.path().join("config.json");
    let pair = STANDARD.encode("fileuser:File-Pw4");
    let auths = format!(
        r#"{{"auths": {{"{}": {{"auth": "{pair}"}}}}}}"#,
        registries[3].host()
    );
    std::fs::write(&auth_file, auths).unwrap();
    let config = format!(
        "debug: true\naddress: {}\nauth: 'inlineuser:Inline-Pw1'\nregistries:\n\
         - {{address: 'http://urluser:Url-Pw2@{}'}}\n\
         - {{address: '{}', auth: '${{TOKEN}}'}}\n\
         - {{address: '{}', authFile: {}, priority: 400}}\n\
         imageRedirMapping: [{{src: quay.io, to: 'http://urluser:Url-Pw2@{}/m'}}]\n",
        registries[0].url(),
        registries[1].host(),
        registries[2].url(),
        registries[3].url(),
        auth_file.display(),
        registries[1].host(),
    );
    let runtime = FakeRuntime::start().await.unwrap();
    let options = Options::new(BINARY, runtime.socket()).env("TOKEN", "envuser:Env-Pw3");
    let shim = Shim::start(&config, options).await.unwrap();
    let auth = AuthConfig {
        username: "kubeletuser".to_owned(),
        password: "Kubelet-Pw5".to_owned(),
        ..AuthConfig::default()
    };
    for name in ["ghcr.io/team/app:1", "quay.io/team/app:1", "none.io/x:1"] {
        shim.client().pull(name, Some(auth.clone())).await.unwrap();
    }
    // A reload, a broken config and a wrong password say things too.
    registries[0].require_basic("inlineuser", "another");
    shim.client().pull("ghcr.io/other:1", None).await.unwrap();
    shim.write_config(&format!("{config}timeout: 'Inline\n"))
        .unwrap();
    shim.wait_for_log("keeping the last good config").await;

    let line = shim
        .wait_for_log("metrics and the page are on http://")
        .await;
    let (_, address) = line.split_once("http://").unwrap();
    let address = address.trim_end().trim_end_matches('/').to_owned();
    let mut shown = vec![("log".to_owned(), shim.log())];
    for path in ["/", "/metrics", "/readyz", "/api/status", "/api/history"] {
        let answer = get(&address, path).await;
        assert!(answer.contains("200 OK"), "{path}: {answer}");
        shown.push((path.to_owned(), answer));
    }
    shim.write_config(&config).unwrap();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["history"],
        &["history", "--json"],
        &["resolve", "ghcr.io/team/app:1", "quay.io/x:1"],
        &["resolve", "--json", "ghcr.io/team/app:1"],
        &["resolve", "--pull", "ghcr.io/team/app:1"],
        &["config", "show", "--local"],
        &["config", "check"],
        &["--dry-run"],
    ] {
        let said = command(&shim, args).await;
        assert!(!said.is_empty(), "{args:?}");
        shown.push((args.join(" "), said));
    }
    drop(shim);
    let encoded = users
        .iter()
        .chain(&[("kubeletuser", "Kubelet-Pw5")])
        .map(|(user, password)| STANDARD.encode(format!("{user}:{password}")));
    let secrets: Vec<String> = SECRETS
        .iter()
        .map(|secret| (*secret).to_owned())
        .chain(encoded)
        .collect();
    for (what, text) in &shown {
        for secret in &secrets {
            assert!(!text.contains(secret), "{what} shows {secret}:\n{text}");
        }
    }
}
