//! Lines, how bad each is, and the report that they make.

use serde::Serialize;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Pulls go on, but something is not as it should be, or soon will not be.
    Warn,
    /// Broken.
    Bad,
}

impl Verdict {
    /// As it is printed: `ok`, `warn`, `bad`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What a line is about. The order is the page's: what is a cause stands before what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Whether kubelet is led to the shim.
    Wiring,
    /// The shim's config.
    Config,
    /// The container runtime.
    Runtime,
    /// The machine: disk, limits, permissions, SELinux.
    Node,
    /// The shim's units, its socket and its process.
    Shim,
    /// Whether kubelet works.
    Kubelet,
    /// The API server and the ConfigMap.
    Cluster,
    /// Registries.
    Registries,
    /// The node cache.
    Cache,
}

impl Area {
    /// The area's title on the page.
    pub fn title(self) -> &'static str {
        match self {
            Self::Wiring => "Kubelet's way to the shim",
            Self::Config => "Config",
            Self::Runtime => "Container runtime",
            Self::Node => "Node",
            Self::Shim => "Shim",
            Self::Kubelet => "Kubelet",
            Self::Cluster => "Cluster",
            Self::Registries => "Registries",
            Self::Cache => "Node cache",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about.
    pub area: Area,
    /// Which check it is: `wiring`, `registry.certificate`. It stays the same from version to version.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was seen, in words. Never holds a credential.
    pub text: String,
    /// The command that mends it, or, where no command can, what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Line {
    pub(crate) fn ok(area: Area, check: &'static str, text: impl Into<String>) -> Self {
        Self {
            area,
            check,
            verdict: Verdict::Ok,
            text: text.into(),
            mend: None,
        }
    }

    pub(crate) fn warn(
        area: Area,
        check: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            mend: Some(mend.into()),
            ..Self::ok(area, check, text)
        }
    }

    pub(crate) fn bad(
        area: Area,
        check: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::warn(area, check, text, mend)
        }
    }
}

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: String,
    /// What kind of node it is: `kubeadm, kubelet.service`; none where no kubelet was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The worst of all lines.
    pub verdict: Verdict,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// In the page's order.
    pub lines: Vec<Line>,
}

impl Report {
    /// How many lines are that bad.
    pub fn count(&self, verdict: Verdict) -> usize {
        let lines = self.lines.iter();
        lines.filter(|line| line.verdict == verdict).count()
    }

    /// What to look at first: the first of the worst lines. None where everything is well.
    pub fn first(&self) -> Option<&Line> {
        let worst = |line: &&Line| line.verdict == self.verdict;
        self.lines
            .iter()
            .find(worst)
            .filter(|line| line.verdict != Verdict::Ok)
    }
}
