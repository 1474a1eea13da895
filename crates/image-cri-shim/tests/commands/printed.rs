//! What the commands print, to the letter; only what differs from run to run is replaced.

use http::StatusCode;
use insta::assert_snapshot;
use testkit::fake_api_server::FakeApiServer;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::fake_runtime::FakeRuntime;
use testkit::images::Image;
use testkit::shim::Shim;

use crate::world::{PASSWORD, no_space, prepared, run, run_with, settled};

/// An offline registry that has nothing, a company's mirror that has `team/app:1` for who knows the
/// password, a redirect's target that refuses everything, and an origin.
pub(crate) struct World {
    pub(crate) shim: Shim,
    pub(crate) runtime: FakeRuntime,
    registries: [FakeRegistry; 4],
}

const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  template:
    spec:
      initContainers:
      - {name: migrate, image: 'ORIGIN/team/app:1'}
      containers:
      - {name: web, image: 'ORIGIN/team/web:1'}
      - {name: bad, image: Nginx:1}
      - {name: app, image: 'ORIGIN/team/app:2'}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: debug}
  spec: {containers: [{name: a, image: a:1}, {name: b, image: b:1}, {name: again, image: docker.io/library/a:1}]}
";

impl World {
    pub(crate) async fn new() -> Self {
        let registries = [(); 4].map(|()| FakeRegistry::start().unwrap());
        let [offline, mirror, target, origin] = &registries;
        mirror.add(&Image::new("app"), "proxy/team/app", "1");
        mirror.require_basic("hugo", PASSWORD);
        target.behave(Behaviour::Status(StatusCode::FORBIDDEN));
        origin.add(&Image::new("app"), "team/app", "1");
        origin.add(&Image::new("web"), "team/web", "1");
        let config = format!(
            "address: {}\nregistries: [{{address: '{}/proxy', auth: 'hugo:{PASSWORD}', priority: 800}}]\n\
             imageRedirMapping: [{{src: docker.io, to: '{}/hub', priority: 100}}]\n",
            offline.url(),
            mirror.url(),
            target.url(),
        );
        let (shim, runtime) = prepared(&config).await;
        Self {
            shim,
            runtime,
            registries,
        }
    }

    pub(crate) async fn started() -> Self {
        let mut world = Self::new().await;
        world.shim.start_again().await.unwrap();
        world
    }

    /// A name at the origin.
    pub(crate) fn at_origin(&self, name: &str) -> String {
        format!("{}/{name}", self.registries[3].host())
    }

    pub(crate) fn settled(&self, text: &str) -> String {
        let registries: Vec<_> = self.registries.iter().collect();
        settled(text, &registries, self.shim.dir())
    }

    async fn run(&self, args: &[&str]) -> String {
        self.settled(&run(&self.shim.config_file(), args).await.text())
    }

    async fn run_with(&self, args: &[&str], env: &[(&str, &str)], stdin: &str) -> String {
        let output = run_with(&self.shim.config_file(), args, env, stdin).await;
        self.settled(&output.text())
    }

    fn manifest(&self) -> String {
        MANIFEST.replace("ORIGIN", &self.registries[3].host())
    }
}

#[tokio::test]
async fn resolve_by_the_config_file() {
    let world = World::new().await;
    let app = world.at_origin("team/app:1");
    assert_snapshot!("resolve_file", world.run(&["resolve", &app]).await);
    assert_snapshot!(
        "resolve_file_json",
        world.run(&["resolve", "--json", &app]).await
    );
    assert_snapshot!(
        "resolve_offline",
        world.run(&["resolve", "--offline", "nginx", &app]).await
    );
    assert_snapshot!(
        "resolve_pull_alone",
        world.run(&["resolve", "--pull", &app]).await
    );
}

#[tokio::test]
async fn resolve_with_credentials_from_elsewhere() {
    let world = World::new().await;
    let dir = world.shim.dir();
    let [_, mirror, ..] = &world.registries;
    let docker = format!(
        r#"{{"auths": {{"{}": {{"username": "hugo", "password": "{PASSWORD}"}}}}}}"#,
        mirror.host()
    );
    std::fs::write(dir.join("docker.json"), docker).unwrap();
    let file = dir.join("elsewhere.yaml");
    let config = format!(
        "shim: {0}/none.sock\naddress: {1}\nauthSecret: offline\n\
         registries: [{{address: '{2}/proxy', authFile: {0}/docker.json}}]\n",
        dir.display(),
        world.registries[0].url(),
        mirror.url(),
    );
    std::fs::write(&file, config).unwrap();
    // A cluster that has no such Secret.
    let cluster = FakeApiServer::start().unwrap();
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig()).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let env = [("KUBECONFIG", kubeconfig), ("NO_PROXY", "127.0.0.1")];
    let app = world.at_origin("team/app:1");
    let output = run_with(&file, &["resolve", &app], &env, "").await;
    assert_snapshot!("resolve_credentials", world.settled(&output.text()));
}

#[tokio::test]
async fn resolve_by_the_running_shim() {
    let world = World::started().await;
    let app = world.at_origin("team/app:1");
    let nobodys = world.at_origin("team/app:9");
    assert_snapshot!("resolve_found", world.run(&["resolve", &app]).await);
    assert_snapshot!("resolve_remembered", world.run(&["resolve", &app]).await);
    assert_snapshot!("resolve_absent", world.run(&["resolve", &nobodys]).await);
    assert_snapshot!(
        "resolve_redirected",
        world.run(&["resolve", "nginx:1.27"]).await
    );
    assert_snapshot!(
        "resolve_json",
        world.run(&["resolve", "--json", "nginx:1.27", &app]).await
    );
    for columns in ["100", "60", "40"] {
        let narrow = [("COLUMNS", columns)];
        let text = world
            .run_with(&["resolve", "nginx:1.27"], &narrow, "")
            .await;
        assert_snapshot!(format!("resolve_{columns}_columns"), text);
    }
}

#[tokio::test]
async fn resolve_a_manifest_and_a_list() {
    let world = World::started().await;
    let manifest = world.manifest();
    let text = world
        .run_with(&["resolve", "-f", "-"], &[], &manifest)
        .await;
    assert_snapshot!("resolve_manifest", text);
    let json = world
        .run_with(
            &["resolve", "-f", "-", "--json", "--offline"],
            &[],
            &manifest,
        )
        .await;
    assert_snapshot!("resolve_manifest_json", json);
    let app = world.at_origin("team/app:1");
    let list = format!("# the shop\n{app}\n\n{app} # again\n");
    assert_snapshot!(
        "resolve_list",
        world.run_with(&["resolve"], &[], &list).await
    );
    let both = world
        .run_with(&["resolve", "--offline", "x:1", "-"], &[], &list)
        .await;
    assert_snapshot!("resolve_image_and_list", both);
}

/// A gateway of Istio's, a Workflow of Argo's, a Task of Tekton's, an operator.
const NOT_YET: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway}
spec: {template: {spec: {containers: [{name: istio-proxy, image: auto}]}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: build-}
spec: {templates: [{name: run, container: {image: '{{inputs.parameters.image}}'}}]}
---
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: build}
spec: {steps: [{name: build, image: $(params.builder)}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator}
spec:
  template:
    spec:
      containers:
      - name: operator
        image: ORIGIN/team/app:1
        args: ['--reloader=ORIGIN/team/web:1']
        env: [{name: RELATED_IMAGE_X, value: 'ORIGIN/team/web:1'}]
";

#[tokio::test]
async fn resolve_what_is_filled_in_later_and_what_may_be_images() {
    let world = World::new().await;
    let manifest = NOT_YET.replace("ORIGIN", &world.registries[3].host());
    let args = ["resolve", "-f", "-"];
    assert_snapshot!(
        "resolve_not_yet",
        world.run_with(&args, &[], &manifest).await
    );
    let args = ["resolve", "-f", "-", "--offline", "--all"];
    assert_snapshot!("resolve_all", world.run_with(&args, &[], &manifest).await);
    let args = ["resolve", "--json"];
    let auto = world.run_with(&args, &[], "auto\n<registry>/app:1\n").await;
    assert_snapshot!("resolve_only_later_json", auto);
}

#[tokio::test]
async fn resolve_and_pull() {
    let world = World::started().await;
    let (app, web) = (world.at_origin("team/app:1"), world.at_origin("team/web:1"));
    assert_snapshot!(
        "pull",
        world.run(&["resolve", "--pull", &app, &web, "Nginx"]).await
    );
    world.runtime.fail("PullImage", no_space());
    assert_snapshot!("pull_failed", world.run(&["resolve", "--pull", &app]).await);
    assert_snapshot!(
        "pull_failed_json",
        world.run(&["resolve", "--pull", "--json", &app]).await
    );
}

#[tokio::test]
async fn mistakes_of_the_command_line_and_the_config() {
    let world = World::new().await;
    let file = world.shim.dir().join("other.yaml");
    std::fs::write(&file, "registries: []\n").unwrap();
    let other = file.display().to_string();
    for (name, args, stdin) in [
        ("no_image", vec!["resolve"], ""),
        (
            "manifest_as_list",
            vec!["resolve"],
            "apiVersion: v1\nkind: Pod\n",
        ),
        (
            "no_manifest",
            vec!["resolve", "-f", "/nonexistent.yaml"],
            "",
        ),
        ("config_as_manifest", vec!["resolve", "-f", &other], ""),
        ("stdin_twice", vec!["resolve", "-", "-f", "-"], ""),
        (
            "template",
            vec!["resolve", "-f", "-"],
            "image: {{ .Values.image }}\n",
        ),
        (
            "pull_offline",
            vec!["resolve", "--pull", "--offline", "x"],
            "",
        ),
        ("odd_name", vec!["resolve", "--offline", "a\u{1b}[2J:1"], ""),
        (
            "odd_manifest",
            vec!["resolve", "-f", "a\u{9b}2J\u{1b}[2J.yaml"],
            "",
        ),
        ("watch_into_a_pipe", vec!["status", "--watch"], ""),
        ("watch_as_json", vec!["status", "--watch", "--json"], ""),
        ("status_alone", vec!["status"], ""),
        ("history_alone", vec!["history", "--json"], ""),
    ] {
        let text = world.run_with(&args, &[], stdin).await;
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text}");
        assert_snapshot!(format!("mistake_{name}"), text);
    }
    std::fs::write(
        &file,
        format!("shim: {}\ntimeout: soon\n", world.shim.socket().display()),
    )
    .unwrap();
    let bad = run(&file, &["resolve", "x"]).await;
    assert_snapshot!("mistake_config", world.settled(&bad.text()));
    let none = run(&world.shim.dir().join("none.yaml"), &["resolve", "x"]).await;
    assert_snapshot!("mistake_no_config", world.settled(&none.text()));
}

#[tokio::test]
async fn what_listens_is_something_else() {
    let world = World::new().await;
    let file = world.shim.dir().join("other.yaml");
    let socket = world.runtime.socket().display();
    std::fs::write(&file, format!("shim: {socket}\n")).unwrap();
    let resolved = run(&file, &["resolve", "--offline", "x"]).await;
    assert_snapshot!("not_ours_resolve", world.settled(&resolved.text()));
    let status = run(&file, &["status"]).await;
    assert_snapshot!("not_ours_status", world.settled(&status.text()));
}

#[tokio::test]
async fn status_and_history() {
    let world = World::started().await;
    assert_snapshot!("status_fresh", world.run(&["status"]).await);
    assert_snapshot!("history_fresh", world.run(&["history"]).await);
    let client = world.shim.client();
    client
        .pull(&world.at_origin("team/app:1"), None)
        .await
        .unwrap();
    client
        .pull(&world.at_origin("team/web:1"), None)
        .await
        .unwrap();
    world.runtime.fail("PullImage", no_space());
    client
        .pull(&world.at_origin("team/app:1"), None)
        .await
        .unwrap_err();
    assert_snapshot!("status", world.run(&["status"]).await);
    assert_snapshot!(
        "status_json",
        world.run(&["status", "--json", "-n", "1"]).await
    );
    assert_snapshot!("history", world.run(&["history"]).await);
    assert_snapshot!("history_one", world.run(&["history", "-n", "1"]).await);
    assert_snapshot!(
        "history_image",
        world.run(&["history", &world.at_origin("team/web")]).await
    );
    assert_snapshot!("history_none", world.run(&["history", "quay.io/x"]).await);
    let json = world.run(&["history", "--json", "-n", "1"]).await;
    assert_snapshot!("history_json", json);
    for args in [
        vec!["status"],
        vec!["history"],
        vec!["resolve", "nginx:1.27"],
    ] {
        // No width is known: standard output is a pipe, and `COLUMNS` says nothing.
        let config = world.shim.config_file();
        let piped = run_with(&config, &args, &[("COLUMNS", "")], "").await;
        for line in piped.stdout.lines() {
            assert!(line.chars().count() <= 160, "{args:?}: {line}");
        }
    }
}

#[tokio::test]
async fn status_of_a_shim_whose_file_was_broken() {
    let world = World::started().await;
    let text = std::fs::read_to_string(world.shim.config_file()).unwrap();
    world
        .shim
        .write_config(&format!("{text}timeout: soon\n"))
        .unwrap();
    world
        .shim
        .wait_for_log("keeping the last good config")
        .await;
    let status = world.run(&["status", "-n", "0"]).await;
    let (_, config) = status.split_once("  config").unwrap();
    let (config, _) = config.split_once("\nRegistries").unwrap();
    assert_snapshot!(config);
}

#[tokio::test]
async fn help() {
    let world = World::new().await;
    for args in [
        vec!["--help"],
        vec!["resolve", "--help"],
        vec!["status", "--help"],
        vec!["history", "--help"],
    ] {
        let name = format!("help_{}", args[..args.len() - 1].join("_"));
        let output = run_with(&world.shim.config_file(), &args, &[("COLUMNS", "100")], "").await;
        assert_snapshot!(name, output.text());
    }
}
