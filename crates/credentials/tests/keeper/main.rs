//! Real programs that are asked for credentials, and files that change.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use credentials::Keeper;
use policy::config::{CredentialPlugins, Found, Need};
use policy::{CredentialSource, Endpoint};
use testkit::wait;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A plugin that notes that it was run, and then runs `script`.
    fn plugin(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        let dir = self.dir.path().display();
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho run >> {dir}/{name}.runs\ncd {dir}\n{script}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runs(&self, name: &str) -> usize {
        let runs = std::fs::read_to_string(self.path(&format!("{name}.runs")));
        runs.map_or(0, |runs| runs.lines().count())
    }

    fn plugins(&self, names: &[&str]) -> CredentialPlugins {
        let providers: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "{{name: {name}, matchImages: ['*.{name}.io'], defaultCacheDuration: 1h, \
                     apiVersion: credentialprovider.kubelet.k8s.io/v1, args: [give], env: [{{name: WHO, value: {name}}}]}}"
                )
            })
            .collect();
        let text = format!("providers: [{}]", providers.join(", "));
        std::fs::write(self.path("plugins.yaml"), text).unwrap();
        CredentialPlugins {
            config: self.path("plugins.yaml"),
            bin_dir: self.path("bin"),
        }
    }
}

/// A script that answers with `user` as the user name.
fn answers(key: &str, duration: &str, user: &str) -> String {
    format!(
        r#"read -r request
echo "$request" >> requests
echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{key}","cacheDuration":{duration},"auth":{{"*.*.io":{{"username":"'"{user}"'","password":"hunter2"}}}}}}'"#
    )
}

fn need(endpoint: &str, file: Option<&Path>) -> Need {
    Need {
        source: file.map(|file| CredentialSource::File(file.to_path_buf())),
        endpoint: Endpoint::parse(endpoint).unwrap().0,
    }
}

fn keeper() -> Keeper {
    Keeper::new(Arc::new(|| Duration::from_millis(10)))
}

async fn user(keeper: &Keeper, need: &Need, wanted: &str) {
    let found = wait::within(wait::TIMEOUT, || async {
        let found = keeper.get(need).credentials?;
        (found.username() == wanted).then_some(())
    });
    assert!(
        found.await.is_some(),
        "not {wanted}: {:?}",
        keeper.get(need)
    );
}

async fn note(keeper: &Keeper, need: &Need) -> String {
    wait::until("a note", || async {
        match keeper.get(need) {
            Found {
                credentials: None,
                note,
            } => note,
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn a_file_is_followed() {
    let world = World::new();
    let file = world.path("config.json");
    let mut keeper = keeper();
    let need = need("https://r.io/mirror", Some(&file));
    keeper.set(std::slice::from_ref(&need), None);
    let missing = note(&keeper, &need).await;
    assert!(missing.contains("config.json: No such file"), "{missing}");
    std::fs::write(
        &file,
        r#"{"auths": {"r.io": {"username": "one", "password": "p"}}}"#,
    )
    .unwrap();
    user(&keeper, &need, "one").await;
    std::fs::write(&file, r#"{"auths": {"r.io/mirror": {"auth": "dHdvOnA="}}}"#).unwrap();
    user(&keeper, &need, "two").await;
    std::fs::write(&file, r#"{"auths": {"other.io": {"auth": "hunter2"}}}"#).unwrap();
    let unknown = note(&keeper, &need).await;
    assert!(unknown.contains("has no entry for r.io"), "{unknown}");
    std::fs::write(&file, "hunter2").unwrap();
    wait::until("another note", || async {
        let note = keeper.get(&need).note?;
        (note.contains("is not a docker config.json") && !note.contains("hunter2")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_plugin_is_asked_in_its_protocol_and_once_for_a_registry() {
    let world = World::new();
    world.plugin("reg", &answers("Registry", "\"1h\"", "$WHO-$1"));
    world.plugin("img", &answers("Image", "null", "$WHO"));
    world.plugin("glob", &answers("Global", "\"1h0m0s\"", "$WHO"));
    let plugins = world.plugins(&["reg", "img", "glob"]);
    let needs: Vec<Need> = [
        "a.reg.io/x",
        "a.reg.io/y",
        "a.img.io/x",
        "a.img.io/y",
        "a.glob.io",
        "b.glob.io",
        "elsewhere.example",
    ]
    .iter()
    .map(|at| need(at, None))
    .collect();
    let mut keeper = keeper();
    keeper.set(&needs, Some(&plugins));
    for (need, wanted) in needs
        .iter()
        .zip(["reg-give", "reg-give", "img", "img", "glob", "glob"])
    {
        user(&keeper, need, wanted).await;
    }
    assert_eq!(keeper.get(&needs[6]), Found::default());
    assert_eq!(
        (world.runs("reg"), world.runs("img"), world.runs("glob")),
        (1, 2, 1)
    );
    let requests = std::fs::read_to_string(world.path("requests")).unwrap();
    assert!(
        requests.contains(r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"a.img.io/x"}"#),
        "{requests}"
    );
}

/// ecr-credential-provider says "21.6µs" and means six hours.
#[tokio::test]
async fn an_answer_for_no_time_at_all_is_used_for_a_while() {
    let world = World::new();
    world.plugin("tiny", &answers("Registry", "\"21.6µs\"", "u"));
    world.plugin("quick", &answers("Registry", "\"1s\"", "u"));
    let plugins = world.plugins(&["tiny", "quick"]);
    let mut keeper = keeper();
    let needs = [need("r.tiny.io", None), need("r.quick.io", None)];
    keeper.set(&needs, Some(&plugins));
    user(&keeper, &needs[0], "u").await;
    wait::until("the other one's third run", || async {
        (world.runs("quick") >= 3).then_some(())
    })
    .await;
    assert_eq!(world.runs("tiny"), 1);
}

#[tokio::test]
async fn credentials_are_refreshed_before_they_expire() {
    let world = World::new();
    world.plugin("p", &answers("Registry", "\"1500ms\"", "$(wc -l < p.runs)"));
    let plugins = world.plugins(&["p"]);
    let need = need("r.p.io", None);
    let mut keeper = keeper();
    keeper.set(std::slice::from_ref(&need), Some(&plugins));
    let mut last = 0;
    wait::until("the third answer", || {
        let now = keeper.get(&need);
        async move {
            let credentials = now.credentials?;
            Some(credentials.username().parse::<u32>().unwrap()).filter(|user| *user >= 3)
        }
    })
    .await;
    // Never without, from the first to the third.
    while world.runs("p") < 5 {
        let user: u32 = keeper
            .get(&need)
            .credentials
            .expect("always some")
            .username()
            .parse()
            .unwrap();
        assert!(user >= last);
        last = user;
        keeper.changed().await;
    }
}

#[tokio::test]
async fn a_plugin_that_fails_is_one_note_without_what_it_said() {
    let world = World::new();
    world.plugin("fails", "echo hunter2; echo hunter2 >&2; exit 3");
    world.plugin("garbage", "echo '{\"password\": \"hunter2\"}'");
    world.plugin("flood", "exec yes hunter2");
    let plugins = world.plugins(&["fails", "garbage", "flood", "missing"]);
    let mut keeper = keeper();
    let cases = [
        ("r.fails.io", "fails failed (exit status: 3)"),
        (
            "r.garbage.io",
            "garbage: its answer is no CredentialProviderResponse",
        ),
        (
            "r.flood.io",
            "flood gave an answer that is too long or no text",
        ),
        ("r.missing.io", "cannot run missing: No such file"),
    ];
    let needs: Vec<Need> = cases.iter().map(|(at, _)| need(at, None)).collect();
    keeper.set(&needs, Some(&plugins));
    for (need, (_, wanted)) in needs.iter().zip(cases) {
        let note = note(&keeper, need).await;
        assert!(note.contains(wanted) && !note.contains("hunter2"), "{note}");
    }
    // Not asked again at every look at the file.
    assert_eq!(world.runs("fails"), 1);
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other() {
    let world = World::new();
    world.plugin("hangs", "exec sleep 600");
    world.plugin("p", &answers("Registry", "\"1h\"", "u"));
    let plugins = world.plugins(&["hangs", "p"]);
    let mut keeper = keeper();
    let (stuck, well) = (need("r.hangs.io", None), need("r.p.io", None));
    keeper.set(std::slice::from_ref(&stuck), Some(&plugins));
    wait::until("it runs", || async {
        (world.runs("hangs") == 1).then_some(())
    })
    .await;
    keeper.set(&[stuck.clone(), well.clone()], Some(&plugins));
    user(&keeper, &well, "u").await;
    assert_eq!(keeper.get(&stuck), Found::default());
}

#[tokio::test]
async fn the_next_one_is_asked_where_the_first_knows_nothing() {
    let world = World::new();
    let script = answers("Registry", "\"1h\"", "u");
    world.plugin("none", &script.replace("*.*.io", "other.example"));
    world.plugin("fails", "exit 3");
    world.plugin("p", &script);
    let plugins = world.plugins(&["none", "fails", "p"]);
    // All three are for everything below `.io`.
    let text = std::fs::read_to_string(&plugins.config).unwrap();
    let everywhere = ["none", "fails", "p"].iter().fold(text, |text, name| {
        text.replace(&format!("*.{name}.io"), "*.p.io")
    });
    std::fs::write(&plugins.config, everywhere).unwrap();
    let mut keeper = keeper();
    let need = need("r.p.io", None);
    keeper.set(std::slice::from_ref(&need), Some(&plugins));
    user(&keeper, &need, "u").await;
    assert_eq!((world.runs("none"), world.runs("fails")), (1, 1));
}

/// As kubelet reads them: all files of the folder are one config, in the order of their names.
#[tokio::test]
async fn a_folder_of_configs_is_followed() {
    let world = World::new();
    for name in ["one", "two", "three"] {
        world.plugin(name, &answers("Registry", "\"1h\"", name));
    }
    let folder = world.path("configs");
    std::fs::create_dir(&folder).unwrap();
    let write = |file: &str, plugin: &str, image: &str| {
        let config = world.plugins(&[plugin]).config;
        let text = std::fs::read_to_string(config).unwrap();
        let text = text.replace(&format!("*.{plugin}.io"), image);
        std::fs::write(folder.join(file), text).unwrap();
    };
    let plugins = CredentialPlugins {
        config: folder.clone(),
        bin_dir: world.path("bin"),
    };
    let mut keeper = keeper();
    let (first, second) = (need("r.first.io", None), need("r.second.io", None));
    keeper.set(&[first.clone(), second.clone()], Some(&plugins));
    let empty = note(&keeper, &first).await;
    assert!(empty.contains("has no *.json, *.yaml or *.yml"), "{empty}");
    write("50.yml", "one", "*.first.io");
    user(&keeper, &first, "one").await;
    write("60.json", "two", "*.second.io");
    user(&keeper, &second, "two").await;
    write("70.txt", "three", "*.first.io");
    // The first file is asked first.
    write("40.yaml", "three", "*.first.io");
    user(&keeper, &first, "three").await;
    // A name that another file has already is not used, and said where nothing else helps.
    write("60.json", "one", "*.second.io");
    let twice = wait::until("a note", || async { keeper.get(&second).note }).await;
    assert!(twice.contains("60.json:1:"), "{twice}");
    assert!(
        twice.contains("there is a provider `one` already"),
        "{twice}"
    );
    std::fs::remove_file(folder.join("50.yml")).unwrap();
    user(&keeper, &second, "one").await;
    std::fs::remove_file(folder.join("40.yaml")).unwrap();
    wait::until("no credentials", || async {
        keeper.get(&first).credentials.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_found_is_used_until_it_expires() {
    let world = World::new();
    world.plugin(
        "p",
        &format!(
            "[ -e broken ] && exit 1\n{}",
            answers("Registry", "\"3s\"", "u")
        ),
    );
    let plugins = world.plugins(&["p"]);
    let need = need("r.p.io", None);
    let mut keeper = keeper();
    keeper.set(std::slice::from_ref(&need), Some(&plugins));
    user(&keeper, &need, "u").await;
    std::fs::write(world.path("broken"), "").unwrap();
    wait::until("a failed refresh", || async {
        (world.runs("p") >= 2).then_some(())
    })
    .await;
    let note = note(&keeper, &need).await;
    assert!(note.contains("p failed"), "{note}");
}

#[tokio::test]
async fn what_is_not_needed_any_more_is_forgotten() {
    let world = World::new();
    world.plugin("p", &answers("Registry", "\"1h\"", "u"));
    let plugins = world.plugins(&["p"]);
    let need = need("r.p.io", None);
    let mut keeper = keeper();
    keeper.set(std::slice::from_ref(&need), Some(&plugins));
    user(&keeper, &need, "u").await;
    keeper.set(&[], Some(&plugins));
    assert_eq!(keeper.get(&need), Found::default());
}

/// Opening a pipe to which nobody writes would wait for ever.
#[tokio::test]
async fn an_auth_file_that_would_block_is_named() {
    let world = World::new();
    let path = world.path("auth.json");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let need = need("reg.io", Some(&path));
    let mut keeper = keeper();
    keeper.set(std::slice::from_ref(&need), None);
    let note = note(&keeper, &need).await;
    assert!(note.contains("not a regular file"), "{note}");
    // And it is read as soon as it can be.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, r#"{"auths": {"*.io": {"auth": "dTpw"}}}"#).unwrap();
    user(&keeper, &need, "u").await;
}
