//! The page, in a real browser.

use testkit::browser::{Browser, Page, Viewport};

use crate::world::{World, decisions, node_cache, running};

/// Text of the row for a decision.
fn row(id: u64) -> String {
    format!("document.querySelector('[data-id=\"{id}\"]')?.innerText")
}

async fn shown(world: &World) -> (Browser, Page) {
    let browser = Browser::start().await.unwrap();
    let page = browser.open(&world.url("/")).await.unwrap();
    page.wait_for("document.querySelectorAll('#pulls li').length >= 3")
        .await;
    (browser, page)
}

/// Nothing went wrong, and nobody else was asked for anything.
fn assert_quiet(world: &World, page: &Page) {
    assert_eq!(page.complaints(), [""; 0]);
    let (own, icon) = (world.url("/"), "data:image/svg+xml,");
    let requests = page.requests();
    let strange = requests
        .iter()
        .filter(|url| !url.starts_with(&own) && !url.starts_with(icon));
    assert_eq!(strange.collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn shows_what_there_is() {
    let world = World::start().await;
    let (_browser, page) = shown(&world).await;
    let text = page.evaluate("document.body.innerText").await.unwrap();
    let text = text.as_str().unwrap();
    for part in [
        "containerd 1.7.24",
        "generation 3",
        "3 h 12 min",
        "79 of 128",
        "from ConfigMap\nregistries",
        "http://sealos.hub:5000",
        "credentials: auth in the config",
        "the Secret harbor is missing",
        "circuit open, next try in 13 s",
        "3 failures in a row: connection refused",
        "not asked yet",
        "nginx:1.27",
        "decided in 3.4 ms",
        "try 2",
        "failed: NOT_FOUND",
        "from memory",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    for id in ["refused", "unreachable", "no-pulls", "no-registries"] {
        let hidden = format!("document.getElementById('{id}').hidden");
        let hidden = page.evaluate(&hidden);
        assert_eq!(hidden.await.unwrap(), true, "{id}");
    }
    assert_quiet(&world, &page);
}

#[tokio::test]
async fn the_node_cache_where_there_is_one() {
    let world = World::start().await;
    let (_browser, page) = shown(&world).await;
    page.wait_for("document.querySelector('#cache[hidden]')")
        .await;
    world.change(|status| status.node_cache = Some(node_cache()));
    page.wait_for("document.querySelector('#cache:not([hidden])')")
        .await;
    let text = "document.getElementById('cache').innerText";
    let text = page.evaluate(text).await.unwrap();
    for part in [
        "/var/lib/image-cri-shim/cache",
        "93 %",
        "14 of 15; 2 stale, 0 without an image",
        "2.0 GiB",
        "512.0 MiB received from registries",
        "1.0 GiB of 50.0 GiB",
        "31 images, 3 had to go",
        "docker.io/library/nginx",
        "http://mirror.corp:5000/library/nginx",
        "3.0 MiB of 12.0 MiB",
        "nobody yet",
    ] {
        assert!(text.as_str().unwrap().contains(part), "{part:?}: {text}");
    }
    world.change(|status| {
        let cache = status.node_cache.as_mut().unwrap();
        cache.arriving.clear();
        cache.passes_through = true;
    });
    let text = "document.getElementById('cache').innerText";
    page.wait_for(&format!("{text}.includes('nothing can be stored')"))
        .await;
    page.wait_for(&format!("!{text}.includes('mirror.corp')"))
        .await;
    world.change(|status| status.node_cache = None);
    page.wait_for("document.querySelector('#cache[hidden]')")
        .await;
    assert_quiet(&world, &page);
}

#[tokio::test]
async fn the_first_look_of_a_new_daemon() {
    let world = World::start().await;
    world.change(|status| {
        status.decisions.clear();
        status.registries.clear();
    });
    let browser = Browser::start().await.unwrap();
    let page = browser.open(&world.url("/")).await.unwrap();
    page.wait_for("document.body.innerText.includes('No pull yet')")
        .await;
    page.wait_for("document.body.innerText.includes('No registry is configured')")
        .await;
    world.change(|status| status.decisions = decisions());
    page.wait_for(&row(3)).await;
    assert_quiet(&world, &page);
}

#[tokio::test]
async fn problems_are_at_the_top() {
    let world = World::start().await;
    let (_browser, page) = shown(&world).await;
    world.change(|status| {
        status.config.error = Some(telemetry::report::ConfigProblem {
            at: "2026-11-21T07:03:00.000Z".to_owned(),
            message: "line 3: timeout: no duration\nline 9: priority: no number".to_owned(),
        });
        status.runtime.reachable = false;
        status.runtime.detail = "connection refused".to_owned();
    });
    page.wait_for("document.querySelector('#refused:not([hidden])')?.innerText.includes('line 9')")
        .await;
    page.wait_for(
        "document.querySelector('#unreachable:not([hidden])')?.innerText.includes('refused')",
    )
    .await;
    world.change(|status| {
        status.config.error = None;
        status.runtime.reachable = true;
    });
    page.wait_for("document.querySelectorAll('.banner[hidden]').length == 2")
        .await;
}

#[tokio::test]
async fn what_is_open_stays_open_while_it_goes_on() {
    let world = World::start().await;
    world.change(|status| status.running.push(running()));
    let (_browser, page) = shown(&world).await;
    page.wait_for(&format!("{}.includes('pulling from')", row(4)))
        .await;
    // From the filter box, the next stop is the first row.
    page.press("/").await.unwrap();
    page.wait_for("document.activeElement.id == 'query'").await;
    page.press("Tab").await.unwrap();
    page.press("Enter").await.unwrap();
    let open = "document.querySelector('[data-id=\"4\"] details[open] .more')?.innerText";
    page.wait_for(&format!("{open}.includes('not waited for')"))
        .await;

    world.change(|status| {
        let mut done = status.running.pop().unwrap();
        done.pulls[0].elapsed_us = Some(2_000_000);
        done.elapsed_us = Some(2_004_000);
        done.outcome = decisions()[2].outcome.clone();
        status.decisions.insert(0, done);
    });
    page.wait_for(&format!("{open}.includes('Done after 2.0 s')"))
        .await;
    // The focus is where it was, and the same key closes it.
    page.press("Enter").await.unwrap();
    page.wait_for("!document.querySelector('details[open]')")
        .await;
    assert_quiet(&world, &page);
}

#[tokio::test]
async fn the_filter_looks_at_all_that_is_kept() {
    let world = World::start().await;
    let mut old = decisions().pop().unwrap();
    (old.id, old.image) = (0, "busybox:1.36".to_owned());
    old.outcome = telemetry::report::Outcome::Cancelled;
    world.daemon.older.lock().push(old);
    let (_browser, page) = shown(&world).await;
    let type_in = async |text: &str| {
        let set =
            format!("$('query').value = '{text}'; $('query').dispatchEvent(new Event('input'))");
        page.evaluate(&set).await.unwrap();
    };
    let ids = "[...document.querySelectorAll('#pulls li')].map(li => li.dataset.id).join()";
    type_in("REDIS").await;
    page.wait_for(&format!("{ids} == '2'")).await;
    type_in("busy").await;
    page.wait_for(&format!("{ids} == '0'")).await;
    type_in("nobody has this").await;
    page.wait_for("$('no-pulls').innerText.includes('None of the 4 pulls')")
        .await;
    // A reload keeps it.
    type_in("nginx").await;
    page.reload().await.unwrap();
    page.wait_for(&format!("{ids} == '1'")).await;
    type_in("").await;
    page.wait_for(&format!("{ids} == '3,2,1'")).await;
}

#[tokio::test]
async fn a_daemon_that_goes_and_comes_back() {
    let mut world = World::start().await;
    let (_browser, page) = shown(&world).await;
    page.wait_for("$('live').innerText == 'live'").await;
    world.stop().await;
    page.wait_for("$('live').innerText.startsWith('not answering since ')")
        .await;
    // What was known last is still there.
    page.wait_for(&row(3)).await;

    // Another run counts from 1 again.
    world.change(|status| {
        status.started_at = "2026-11-21T08:00:00.000Z".to_owned();
        let mut first = status.decisions.pop().unwrap();
        first.image = "after-the-restart:1".to_owned();
        status.decisions = vec![first];
    });
    world.start_again().await;
    page.wait_for("$('live').innerText == 'live'").await;
    page.wait_for(&format!("{}.includes('after-the-restart:1')", row(1)))
        .await;
    page.wait_for("document.querySelectorAll('#pulls li').length == 1")
        .await;
}

#[tokio::test]
async fn a_page_that_nobody_sees_asks_nothing() {
    let world = World::start().await;
    let (_browser, page) = shown(&world).await;
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}}); \
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    page.evaluate(&hide(true)).await.unwrap();
    page.wait_for("!busy").await;
    // What the timer would do, as often as it likes.
    let asked = page.requests().len();
    for _ in 0..5 {
        page.evaluate("poll()").await.unwrap();
    }
    assert_eq!(page.requests().len(), asked);
    let mut newer = running();
    newer.image = "while-hidden:1".to_owned();
    world.change(|status| status.running.push(newer));
    page.evaluate(&hide(false)).await.unwrap();
    page.wait_for(&format!("{}.includes('while-hidden')", row(4)))
        .await;
}

/// Pairs of text and background of which too little can be seen (WCAG: 4.5 to 1).
const HARD_TO_READ: &str = r"(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = color => {
    const [r, g, b] = [...rgba(color)].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (rgba(color)[3] > 250) return color;
    }
    return 'white';
  };
  const bad = [];
  for (const node of document.querySelectorAll('body *')) {
    const text = [...node.childNodes].filter(n => n.nodeType == 3).map(n => n.data.trim()).join('');
    if (!text || !node.checkVisibility() || node.tagName == 'SCRIPT') continue;
    const style = getComputedStyle(node), pair = [light(style.color), light(behind(node))].sort((a, b) => b - a);
    const contrast = (pair[0] + .05) / (pair[1] + .05);
    if (contrast < 4.5) bad.push(text.slice(0, 40) + ' ' + style.color + ' on ' + behind(node) + ': ' + contrast.toFixed(2));
  }
  return bad;
})()";

#[tokio::test]
async fn readable_on_a_phone_and_in_the_dark() {
    let world = World::start().await;
    world.change(|status| {
        status.running.push(running());
        status.runtime.reachable = false;
        status.config.error = Some(telemetry::report::ConfigProblem {
            at: "2026-11-21T07:03:00.000Z".to_owned(),
            message: format!("a word without end: {}", "x".repeat(300)),
        });
        status.config.file = format!("/etc/{}.yaml", "long".repeat(40));
        status.registries[1].address = format!("https://{}.corp", "very-long-".repeat(20));
    });
    let (_browser, page) = shown(&world).await;
    page.evaluate("document.querySelectorAll('summary').forEach(s => s.click())")
        .await
        .unwrap();
    page.wait_for("document.querySelectorAll('.more').length == 4")
        .await;
    for viewport in [
        Viewport::DESK,
        Viewport {
            dark: true,
            ..Viewport::DESK
        },
        Viewport {
            width: 761,
            ..Viewport::DESK
        },
        Viewport::PHONE,
        Viewport {
            dark: false,
            ..Viewport::PHONE
        },
    ] {
        page.look(viewport).await.unwrap();
        let width = page
            .evaluate("document.documentElement.scrollWidth")
            .await
            .unwrap();
        assert!(
            width.as_u64().unwrap() <= u64::from(viewport.width),
            "{width} in {viewport:?}"
        );
        let hard = page.evaluate(HARD_TO_READ).await.unwrap();
        assert_eq!(hard, serde_json::json!([]), "{viewport:?}");
        let dark = "getComputedStyle(document.body).backgroundColor == 'rgb(14, 17, 22)'";
        assert_eq!(page.evaluate(dark).await.unwrap(), viewport.dark);
    }
    // It would have been seen.
    let pale = "document.documentElement.style.setProperty('--dim', 'var(--line)')";
    page.evaluate(pale).await.unwrap();
    assert_ne!(
        page.evaluate(HARD_TO_READ).await.unwrap(),
        serde_json::json!([])
    );
    assert_quiet(&world, &page);
}

#[tokio::test]
async fn text_from_elsewhere_is_only_text() {
    let world = World::start().await;
    let hostile =
        r#"<img src=x onerror="pwned=1"><script>pwned=1</script>"'><svg/onload=pwned=1>${pwned=1}"#;
    world.change(|status| {
        for decision in &mut status.decisions {
            decision.image = hostile.to_owned();
            decision.at = hostile.to_owned();
            for candidate in &mut decision.candidates {
                candidate.image = hostile.to_owned();
                candidate.registry = hostile.to_owned();
                candidate.reason = hostile.to_owned();
                candidate.credentials = hostile.to_owned();
                if let Some(probe) = &mut candidate.probe {
                    probe.detail = hostile.to_owned();
                    probe.digest = Some(hostile.to_owned());
                }
            }
            for pull in &mut decision.pulls {
                pull.registry = hostile.to_owned();
                pull.error = Some(hostile.to_owned());
            }
        }
        let registry = &mut status.registries[0];
        registry.address = hostile.to_owned();
        registry.detail = hostile.to_owned();
        registry.note = Some(hostile.to_owned());
        status.version = hostile.to_owned();
        status.runtime.detail = hostile.to_owned();
        status.config.file = hostile.to_owned();
        status.config.parts[0].field = hostile.to_owned();
    });
    let (_browser, page) = shown(&world).await;
    page.evaluate("document.querySelectorAll('summary').forEach(s => s.click())")
        .await
        .unwrap();
    page.wait_for("document.querySelectorAll('.more').length == 3")
        .await;
    let text = page.evaluate("document.body.innerText").await.unwrap();
    assert!(
        text.as_str().unwrap().matches(hostile).count() > 20,
        "{text}"
    );
    assert_eq!(page.evaluate("typeof pwned").await.unwrap(), "undefined");
    let made = "document.querySelectorAll('img, svg, body script:not(:last-child)').length";
    assert_eq!(page.evaluate(made).await.unwrap(), 0);
    assert_quiet(&world, &page);
}
