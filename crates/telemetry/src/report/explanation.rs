//! What would happen to an image, and why.

use serde::{Deserialize, Serialize};

use super::candidate::{CandidateReport, ProbeReport};
use super::place::Place;

/// The redirect that applies to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectReport {
    /// Its number in `imageRedirMapping`, counted from 1.
    pub rule: usize,
    /// Its prefix.
    pub src: String,
    /// What replaces the prefix.
    pub to: String,
    /// What the image becomes.
    pub image: String,
}

/// Where the image's own name points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginReport {
    /// The name that would be pulled: as it was written.
    pub image: String,
    /// Whether it may be pulled at all (`fallbackToOrigin`).
    pub allowed: bool,
    /// What it said; none where it was not asked, because something better has the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
}

/// Whose knowledge an explanation is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge {
    /// The running shim's: its config, its memory, which circuits are open.
    Daemon,
    /// The config file's; nothing was known before.
    ConfigFile,
}

/// What would happen to an image, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The image, as it was asked for.
    pub image: String,
    /// The name that all its spellings share; none for what passes untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
    /// Why no rule applies to it at all: it is an image ID, or no valid name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untouched: Option<String>,
    /// The redirect that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectReport>,
    /// Who may have it, best first.
    pub candidates: Vec<CandidateReport>,
    /// Registries of the config that are not asked for it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Where its own name points; none for what passes untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginReport>,
    /// What would be pulled, in this order until one succeeds.
    pub order: Vec<Choice>,
    /// Whether somebody has it. None without probes (`--offline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// Microseconds from the question to the explanation.
    pub elapsed_us: u64,
    /// Whose knowledge this is.
    pub knowledge: Knowledge,
}

/// A registry of the config that is not asked for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its address.
    pub registry: String,
    /// Why it is not asked.
    pub why: String,
}

/// One name in the order of pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What the runtime would be asked to pull.
    pub image: String,
    /// The registry's address; `origin` for the name as it was written.
    pub registry: String,
    /// What kind of place it is.
    pub place: Place,
}
