//! For tests only: what holds for every input from outside, as functions of bytes.
//!
//! Each [`Property`] takes any bytes and panics where the product breaks its promise. They are run in two ways: by
//! libFuzzer (`cargo xtask fuzz`, targets in `fuzz/`), which looks for new ways through the code, and by this crate's
//! own test on mutated seeds, with a fixed budget, wherever `cargo xtask test` runs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a property fails"
)]

mod cri_calls;
mod files;
mod names;
mod pods;
mod registries;

/// One thing that reads what comes from outside, and what holds for it.
#[derive(Clone, Copy)]
pub struct Property {
    /// Name of the fuzz target and of the folder of its seeds.
    pub name: &'static str,
    /// Panics where the promise is broken.
    pub check: fn(&[u8]),
}

/// All of them.
pub const PROPERTIES: [Property; 15] = [
    property("reference", names::reference),
    property("endpoint", names::endpoint),
    property("plan", names::plan),
    property("config", files::config),
    property("configmap", files::configmap),
    property("docker_config", files::docker_config),
    property("manifest_finder", files::manifest_finder),
    property("hosts_toml", registries::hosts_toml),
    property("challenge", registries::challenge),
    property("range", registries::range),
    property("oci_manifest", registries::oci_manifest),
    property("wire_edit", cri_calls::wire_edit),
    property("list_images", cri_calls::list_images),
    property("authority", cri_calls::authority),
    property("review", pods::review),
];

const fn property(name: &'static str, check: fn(&[u8])) -> Property {
    Property { name, check }
}

/// Checks the property of that name. For fuzz targets.
///
/// # Panics
/// The property does not hold for `data`, or there is none of that name.
pub fn check(name: &str, data: &[u8]) {
    let property = PROPERTIES.iter().find(|property| property.name == name);
    (property.expect("a property of that name").check)(data);
}

/// A secret that stands in what is read: no error may repeat it.
const CANARY: &str = "CANARY-s3cret";

/// Panics where `text` repeats the secret.
fn keeps_the_secret(text: &str) {
    assert!(!text.contains(CANARY), "a message repeats a secret: {text}");
}
