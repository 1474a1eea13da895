//! One page of the browser.

use std::future::ready;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::protocol::Connection;
use crate::wait;

/// What a page is looked at with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Viewport {
    /// Width in CSS pixels.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
    /// Pixels of the device for one of CSS.
    pub scale: f64,
    /// Whether it is a phone: fingers, no hovering, the page's own idea of its width.
    pub phone: bool,
    /// Whether the user likes it dark.
    pub dark: bool,
}

impl Viewport {
    /// A window on a desk.
    pub const DESK: Self = Self {
        width: 1280,
        height: 800,
        scale: 1.0,
        phone: false,
        dark: false,
    };
    /// A small phone, at night.
    pub const PHONE: Self = Self {
        width: 360,
        height: 740,
        scale: 2.0,
        phone: true,
        dark: true,
    };
}

/// What Chrome tells when a page has loaded.
const LOADED: &str = "Page.loadEventFired";

/// A page. It stays open until its browser ends.
pub struct Page {
    connection: Connection,
    session: String,
}

impl Page {
    pub(super) async fn open(connection: Connection) -> Result<Self> {
        let target = json!({"url": "about:blank"});
        let target = connection
            .command(None, "Target.createTarget", target)
            .await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = connection
            .command(None, "Target.attachToTarget", attach)
            .await?;
        let session = attached["sessionId"].as_str().context("no session")?;
        let page = Self {
            session: session.to_owned(),
            connection,
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.command(&format!("{domain}.enable"), json!({})).await?;
        }
        page.look(Viewport::DESK).await?;
        Ok(page)
    }

    async fn command(&self, method: &str, params: Value) -> Result<Value> {
        self.connection
            .command(Some(&self.session), method, params)
            .await
    }

    /// Goes to `url` and waits until it has loaded. What comes back may be an error page.
    ///
    /// # Errors
    /// Nobody answers there, or the browser has ended.
    pub async fn go(&self, url: &str) -> Result<()> {
        let before = self.count(LOADED);
        let gone = self.command("Page.navigate", json!({"url": url})).await?;
        if let Some(error) = gone["errorText"].as_str() {
            bail!("going to {url}: {error}");
        }
        self.loaded_since(before).await.context(url.to_owned())
    }

    /// Loads the page once more, and waits until it has loaded.
    ///
    /// # Errors
    /// It doesn't, or the browser has ended.
    pub async fn reload(&self) -> Result<()> {
        let before = self.count(LOADED);
        self.command("Page.reload", json!({})).await?;
        self.loaded_since(before).await
    }

    async fn loaded_since(&self, before: usize) -> Result<()> {
        let done = || ready((self.count(LOADED) > before).then_some(()));
        let loaded = wait::within(wait::TIMEOUT, done).await;
        loaded.context("the page didn't finish loading")
    }

    /// What `script`, an expression, gives; a promise is waited for.
    ///
    /// # Errors
    /// What it throws, or the browser has ended.
    pub async fn evaluate(&self, script: &str) -> Result<Value> {
        let params = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let done = self.command("Runtime.evaluate", params).await?;
        if let Some(thrown) = done.get("exceptionDetails") {
            let what = &thrown["exception"]["description"];
            bail!("{script}: {}", what.as_str().unwrap_or("it threw"));
        }
        Ok(done["result"]["value"].clone())
    }

    /// Waits until `script` gives something that is true, and gives that.
    ///
    /// # Panics
    /// When it doesn't in time; what the page shows is in the message.
    pub async fn wait_for(&self, script: &str) -> Value {
        let found = wait::within(wait::TIMEOUT, || async {
            self.evaluate(script).await.ok().filter(is_true)
        });
        match found.await {
            Some(value) => value,
            None => panic!(
                "waited {:?} in vain for: {script}\nnow it gives: {:?}\nthe page says: {:?}",
                wait::TIMEOUT,
                self.evaluate(script).await,
                self.evaluate("document.body.innerText").await,
            ),
        }
    }

    /// Looks at it with other eyes.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn look(&self, viewport: Viewport) -> Result<()> {
        let Viewport {
            width,
            height,
            scale,
            phone,
            dark,
        } = viewport;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.command("Emulation.setDeviceMetricsOverride", metrics)
            .await?;
        let touch = json!({"enabled": phone});
        self.command("Emulation.setTouchEmulationEnabled", touch)
            .await?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Presses and releases a key that has this name in the DOM: `Enter`, `Tab`, `/`.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn press(&self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => (0, other),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.command("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// What is seen of it, as PNG; with `whole`, also what one would have to scroll to.
    ///
    /// # Errors
    /// The browser has ended.
    pub async fn screenshot(&self, whole: bool) -> Result<Vec<u8>> {
        let params = json!({"format": "png", "captureBeyondViewport": whole});
        let taken = self.command("Page.captureScreenshot", params).await?;
        let data = taken["data"].as_str().context("no picture")?;
        Ok(STANDARD.decode(data)?)
    }

    /// What the page's console has complained about: errors, uncaught exceptions, violations of its
    /// content security policy, answers that were errors.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let events = self.connection.events(&self.session);
        events.iter().filter_map(complaint).collect()
    }

    /// The URLs of all requests that it has made.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let events = self.connection.events(&self.session);
        let requests = events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .map(ToOwned::to_owned)
            .collect()
    }

    fn count(&self, method: &str) -> usize {
        let events = self.connection.events(&self.session);
        let same = events.iter().filter(|event| event["method"] == method);
        same.count()
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(value) => !value.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled"
            if matches!(params["type"].as_str(), Some("error" | "assert")) =>
        {
            Some(params["args"].to_string())
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            let entry = &params["entry"];
            Some(format!("{}: {}", entry["text"], entry["url"]))
        }
        _ => None,
    }
}
