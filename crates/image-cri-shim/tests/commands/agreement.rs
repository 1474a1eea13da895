//! What `resolve` says, the shim does.

use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::cases::{self, Case, Scene};
use crate::world::{no_space, prepared, pulled, run};

/// Cases that run at once; each is some processes.
const AT_ONCE: usize = 4;

#[tokio::test]
async fn resolve_agrees_with_what_a_pull_then_does() {
    let mut all = stream::iter(cases::all()).map(agree).buffered(AT_ONCE);
    while let Some(()) = all.next().await {}
}

async fn agree(case: Case) {
    let scene = Scene::new(&case).await;
    let config = format!("probeTimeout: 1s\n{}", scene.fill(case.config));
    let image = scene.fill(case.image);
    let (mut shim, runtime) = prepared(&config).await;
    let file = shim.config_file();
    let resolve = async || {
        let output = run(&file, &["resolve", "--json", &image]).await;
        let all: Vec<Value> = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, output.text()));
        assert_eq!(all.len(), 1, "{}", case.name);
        (output.code, all.into_iter().next().unwrap())
    };
    let offline = async || {
        let output = run(&file, &["resolve", "--json", "--offline", &image]).await;
        let all: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
        names(&all[0], "candidates")
    };

    let (code, by_file) = resolve().await;
    check(&case, code, &by_file, "config_file");
    let planned = offline().await;
    assert_eq!(planned, names(&by_file, "candidates"), "{}", case.name);

    shim.start_again().await.unwrap();
    if let Some(before) = case.before {
        // As its end may be; what matters is what was learnt by the way.
        let _ = shim.client().pull(&scene.fill(before), None).await;
    }
    let (code, by_daemon) = resolve().await;
    check(&case, code, &by_daemon, "daemon");
    assert_eq!(offline().await, planned, "{}", case.name);
    let order = names(&by_daemon, "order");
    assert_eq!(order, names(&by_file, "order"), "{}", case.name);
    let first = order.first().map(String::as_str).unwrap_or_default();
    if !case.first.is_empty() {
        assert_eq!(first, scene.fill(case.first), "{}", case.name);
    }

    runtime.clear_requests();
    let pull = async || {
        // Whether it succeeds is the runtime's word here.
        let ended = shim.client().pull(&image, None).await;
        (ended.is_ok(), pulled(&runtime))
    };
    let expected: Vec<String> = order.iter().take(1).cloned().collect();
    assert_eq!(pull().await, (!order.is_empty(), expected), "{}", case.name);

    // When every pull fails, all are tried, in that order.
    runtime.fail("PullImage", no_space());
    runtime.clear_requests();
    assert_eq!(pull().await, (false, order), "{}", case.name);

    // A place that failed to give it is not asked for it again.
    let (_, again) = resolve().await;
    runtime.clear_requests();
    assert_eq!(
        pull().await,
        (false, names(&again, "order")),
        "{}, again",
        case.name
    );
    let count = |list: &Value, wanted: &dyn Fn(&Value) -> bool| {
        let list = list.as_array().unwrap().iter();
        list.filter(|entry| wanted(entry)).count()
    };
    let tried = count(&by_daemon["order"], &|choice| choice["place"] != "origin");
    let failed = count(&again["candidates"], &|c| {
        c["probe"]["result"] == "pull_failed"
    });
    assert_eq!(failed, tried, "{}: {again:#}", case.name);
}

fn check(case: &Case, code: i32, report: &Value, knowledge: &str) {
    let name = case.name;
    assert_eq!(report["knowledge"], knowledge, "{name}");
    assert_eq!(
        report["available"].as_bool(),
        case.available,
        "{name}: {report:#}"
    );
    let is_good = case.available == Some(true);
    assert_eq!(code, i32::from(!is_good), "{name}: {report:#}");
    if case.before.is_some() && knowledge == "daemon" {
        let freshness = &report["candidates"][0]["probe"]["freshness"];
        assert!(freshness != "probed", "{name}: {report:#}");
    }
}

fn names(report: &Value, list: &str) -> Vec<String> {
    let list = report[list].as_array().unwrap().iter();
    list.map(|entry| entry["image"].as_str().unwrap().to_owned())
        .collect()
}
