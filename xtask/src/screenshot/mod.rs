//! `cargo xtask screenshot`: the pictures of the page in `docs/`, taken of a real containerd, a shim and
//! registries that behave as registries do, in a network of their own where they have names.

mod picture;
mod scene;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use testkit::browser::{self, Browser, Page, Viewport};
use testkit::netns;
use testkit::tools::Tools;

use self::scene::Scene;
use crate::step::{build_shim, need_root, root, shim_built};

/// What a picture in the repository may weigh.
const LARGEST: usize = 200_000;
/// Where the page is; the port is free, because nobody else is in the network.
const ADDRESS: &str = "127.0.0.1:7441";

/// The phone's picture is cut off below.
const PHONE: Viewport = Viewport {
    height: 1500,
    scale: 1.5,
    ..Viewport::PHONE
};

/// Builds the shim (unless a binary is given) and takes the pictures.
pub(crate) fn run(binary: Option<PathBuf>) -> Result<()> {
    need_root("cargo xtask screenshot")?;
    let binary = binary.unwrap_or_else(shim_built);
    if !netns::is_inside() {
        Tools::ensure().context("the programs that are shown")?;
        browser::ensure().context("the browser that takes the pictures")?;
        build_shim()?;
    }
    netns::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let scene = Scene::set(&binary).await?;
        scene.play().await?;
        let browser = Browser::start().await?;
        let page = browser.open(&format!("http://{ADDRESS}/")).await?;
        page.wait_for("document.querySelectorAll('#pulls li').length > 8")
            .await;
        page.wait_for("document.querySelector('#pulls').innerText.includes('pulling from')")
            .await;
        open(&page, "redis:7").await?;
        let end =
            "document.querySelector('[aria-labelledby=h-pulls]').getBoundingClientRect().bottom";
        let end = page.evaluate(end).await?.as_f64().context("no pulls")?;
        let desk = Viewport {
            height: end as u32 + 14,
            ..Viewport::DESK
        };
        take(&page, desk, "page.png").await?;
        close(&page).await?;
        take(&page, PHONE, "page-phone.png").await
    })
}

/// Opens the row of an image.
async fn open(page: &Page, image: &str) -> Result<()> {
    let rows = "[...document.querySelectorAll('summary')]";
    let find =
        format!("{rows}.find(row => row.querySelector('.name').innerText == '{image}').click()");
    page.evaluate(&find).await?;
    page.wait_for("document.querySelector('.more')").await;
    Ok(())
}

/// Closes it again.
async fn close(page: &Page) -> Result<()> {
    page.evaluate("document.querySelector('[open] summary').click()")
        .await?;
    page.wait_for("!document.querySelector('.more')").await;
    Ok(())
}

async fn take(page: &Page, viewport: Viewport, name: &str) -> Result<()> {
    page.look(viewport).await?;
    let picture = picture::smaller(&page.screenshot(false).await?)?;
    let file = root().join("docs").join(name);
    fs::write(&file, &picture).with_context(|| format!("writing {}", file.display()))?;
    println!("{} ({} kB)", file.display(), picture.len() / 1000);
    ensure!(picture.len() < LARGEST, "that is more than {LARGEST} bytes");
    Ok(())
}
