//! The container runtime: one and the same behind the shim, behind the bypass and for kubelet, and answering.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::runtime::RuntimeConfig;
use cri::upstream::Upstream;
use installer::{DEFAULTS, Kind, Node, RUNTIME_VARIABLE};
use policy::containerd::Hint;
use policy::rules::Rules;
use telemetry::report::Status;

use crate::environment::Environment;
use crate::host::Host;
use crate::patience::{Timely, within};
use crate::report::{Area, Line};
use crate::wiring::install_files;

/// What the bypass's unit says where nobody has written another one.
const DEFAULT_TARGET: &str = "/run/containerd/containerd.sock";

/// What is written about the runtime's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// `cri:` in the config.
    pub(crate) config: Option<PathBuf>,
    /// The variable that the units read.
    pub(crate) defaults: Option<PathBuf>,
    /// What kubelet dials for containers, and where that stands.
    pub(crate) kubelet: Option<(PathBuf, String)>,
    /// What a running shim uses.
    pub(crate) daemon: Option<PathBuf>,
    /// The command that writes the node's files, as far as it is known which.
    pub(crate) install: String,
}

impl Written {
    pub(crate) fn of(
        config: Option<&Path>,
        environment: &Environment,
        node: Option<&Node>,
        status: Option<&Status>,
    ) -> Self {
        Self {
            config: config.map(Path::to_owned),
            defaults: environment.of_the_unit(RUNTIME_VARIABLE).map(PathBuf::from),
            kubelet: node.map(|node| (node.runtime.clone(), node.runtime_from.clone())),
            daemon: status.map(|status| PathBuf::from(&status.runtime.socket)),
            install: install_files(node),
        }
    }

    /// The socket that a shim would use that starts now.
    pub(crate) fn effective(&self) -> PathBuf {
        let kubelets = self.kubelet.as_ref().map(|(socket, _)| socket);
        let all = [self.config.as_ref(), self.defaults.as_ref(), kubelets];
        let first = all.into_iter().flatten().next();
        first.map_or_else(|| PathBuf::from(DEFAULT_TARGET), Clone::clone)
    }

    /// Where the bypass leads.
    fn bypass(&self) -> PathBuf {
        let defaults = self.defaults.clone();
        defaults.unwrap_or_else(|| PathBuf::from(DEFAULT_TARGET))
    }
}

/// What the runtime says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    socket: PathBuf,
    /// Its name and version.
    version: Timely<Result<String, String>>,
    /// Where its image service keeps images.
    images: Timely<Result<Vec<PathBuf>, String>>,
}

impl Facts {
    /// Whether it answers.
    pub(crate) fn answers(&self) -> bool {
        matches!(self.version, Ok(Ok(_)))
    }

    /// Where it keeps images.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match &self.images {
            Ok(Ok(folders)) => folders.clone(),
            _ => Vec::new(),
        }
    }
}

/// Asks the runtime on `socket`, as the node sees it.
pub(crate) async fn gather(host: &Host, socket: PathBuf, limit: Duration) -> Facts {
    let place = host.place(&socket).unwrap_or_else(|_| socket.clone());
    let upstream = Upstream::new(&place);
    let version = async {
        let version = cri::runtime_version(&upstream).await;
        version.map_err(|error| error.to_string())
    };
    let images = async {
        match cri::image_file_systems(&upstream).await {
            Ok(Ok(folders)) => Ok(folders),
            Ok(Err(status)) => Err(status.message),
            Err(error) => Err(error.to_string()),
        }
    };
    let (version, images) = tokio::join!(within(limit, version), within(limit, images));
    Facts {
        socket,
        version,
        images,
    }
}

/// The command that starts the runtime which listens on `socket`.
fn start(socket: &Path, node: Option<&Node>) -> String {
    let unit = match node {
        Some(node) if matches!(node.kind, Kind::K3s | Kind::Rke2 | Kind::K0s) => node.unit.clone(),
        _ => {
            let socket = socket.display().to_string();
            let known = [
                ("cri-dockerd", "cri-docker.socket cri-docker.service"),
                ("crio", "crio"),
            ];
            let known = known.iter().find(|(part, _)| socket.contains(part));
            known.map_or("containerd", |(_, unit)| unit).to_owned()
        }
    };
    format!("systemctl restart {unit}")
}

/// The line that compares what is written.
pub(crate) fn judge_target(host: &Host, written: &Written, leads_past: bool) -> Line {
    const CHECK: &str = "runtime.target";
    let place = |path: &Path| host.place(path).unwrap_or_else(|_| path.to_owned());
    let is_same = |one: &Path, other: &Path| place(one) == place(other);
    let effective = written.effective();
    let (bypass, shown) = (written.bypass(), effective.display());
    // Without the packages' units there is no bypass.
    if leads_past && !is_same(&effective, &bypass) {
        let text = format!(
            "two answers: `cri:` in the config leads the shim to {shown}, and {DEFAULTS} leads the bypass to {}",
            bypass.display()
        );
        let kubelets = written.kubelet.as_ref();
        let is_config_wrong = kubelets.is_some_and(|(socket, _)| is_same(socket, &bypass));
        let mend = match is_config_wrong {
            true => {
                "sed -i '/^cri:/d' /etc/image-cri-shim.yaml && systemctl restart image-cri-shim"
                    .to_owned()
            }
            false => format!(
                "touch {DEFAULTS} && sed -i -e '/^{RUNTIME_VARIABLE}=/d' -e '$a\\' {DEFAULTS} && echo {RUNTIME_VARIABLE}={shown} >> {DEFAULTS} && systemctl restart image-cri-shim-bypass.service image-cri-shim"
            ),
        };
        return Line::bad(Area::Runtime, CHECK, text, mend);
    }
    if let Some((kubelets, from)) = &written.kubelet
        && !is_same(&effective, kubelets)
    {
        return Line::bad(
            Area::Runtime,
            CHECK,
            format!(
                "the shim leads to {shown}, but kubelet starts its containers with {} ({from}): pulled images are not where kubelet looks for them",
                kubelets.display()
            ),
            format!(
                "{} --runtime {} && systemctl restart image-cri-shim",
                written.install,
                kubelets.display()
            ),
        );
    }
    if let Some(daemon) = &written.daemon
        && !is_same(&effective, daemon)
    {
        return Line::warn(
            Area::Runtime,
            CHECK,
            format!(
                "the running shim uses {}, and what is written by now is {shown}",
                daemon.display()
            ),
            "systemctl restart image-cri-shim",
        );
    }
    let whom = match leads_past {
        true => "shim, bypass and kubelet lead to one runtime",
        false => "shim and kubelet lead to one runtime",
    };
    Line::ok(Area::Runtime, CHECK, format!("{whom}: {shown}"))
}

/// What the files of the runtime on `socket` need so that images come from the places of `rules`.
pub(crate) fn hints(host: &Host, socket: &Path, rules: &Rules) -> Vec<Hint> {
    RuntimeConfig::read(host.dir(), socket).containerd_hints(rules)
}

/// Their lines. Pulls from there fail, and go on at the next place.
pub(crate) fn judge_hints(hints: &[Hint]) -> Vec<Line> {
    let line = |hint: &Hint| {
        let Hint { text, mend } = hint.clone();
        Line::warn(Area::Runtime, "runtime.plain_http", text, mend)
    };
    hints.iter().map(line).collect()
}

/// The lines of what the runtime says.
pub(crate) fn judge(facts: &Facts, node: Option<&Node>) -> Vec<Line> {
    let socket = facts.socket.display();
    let mend = start(&facts.socket, node);
    let bad = |check, text: String| Line::bad(Area::Runtime, check, text, mend.clone());
    let version = match &facts.version {
        Ok(Ok(version)) => policy::text::one_line(version, 100),
        Ok(Err(why)) => {
            let why = policy::text::one_line(why, 200);
            return vec![bad("runtime", why)];
        }
        Err(late) => {
            let text = format!(
                "the container runtime at {socket} takes connections, but is stuck: {late}"
            );
            return vec![bad("runtime", text)];
        }
    };
    let mut lines = vec![Line::ok(
        Area::Runtime,
        "runtime",
        format!("{version} answers at {socket}"),
    )];
    lines.push(match &facts.images {
        Ok(Ok(_)) => Line::ok(Area::Runtime, "runtime.images", "its image service answers"),
        Ok(Err(why)) => bad(
            "runtime.images",
            format!(
                "its image service does not work: {}",
                policy::text::one_line(why, 200)
            ),
        ),
        Err(late) => bad(
            "runtime.images",
            format!("its image service is stuck: {late}"),
        ),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::Late;
    use crate::report::Verdict;

    fn written(config: Option<&str>, defaults: Option<&str>, kubelet: &str) -> Written {
        Written {
            config: config.map(PathBuf::from),
            defaults: defaults.map(PathBuf::from),
            kubelet: Some((PathBuf::from(kubelet), "its flags".to_owned())),
            daemon: None,
            install: install_files(None),
        }
    }

    #[test]
    fn a_plain_place_that_containerd_is_not_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), true);
        let socket = Path::new("/run/containerd/containerd.sock");
        let place = dir.path().join("run/containerd/containerd.sock");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "").unwrap();
        let text = "address: http://sealos.hub:5000";
        let rules = policy::config::Settings::read(text, &|_| None).0.rules;
        // Also where the config names the socket as it stands on this machine.
        for socket in [socket, &place] {
            let lines = judge_hints(&hints(&host, socket, &rules));
            let [line] = lines.as_slice() else {
                panic!("{lines:?}");
            };
            assert_eq!(line.verdict, Verdict::Warn);
            assert!(
                line.text.contains("sealos.hub:5000 by TLS only"),
                "{line:?}"
            );
            let mend = line.mend.as_deref().unwrap();
            assert!(
                mend.starts_with("mkdir -p /etc/containerd/certs.d/"),
                "{mend}"
            );
        }
    }

    #[test]
    fn one_source_for_shim_bypass_and_kubelet() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), true);
        let containerd = "/run/containerd/containerd.sock";
        let crio = "/var/run/crio/crio.sock";
        for (config, defaults, kubelet, leads_past, verdict, part) in [
            (None, None, containerd, true, Verdict::Ok, "one runtime"),
            (
                Some(crio),
                Some("/run/crio/crio.sock"),
                crio,
                true,
                Verdict::Ok,
                "",
            ),
            (Some(crio), None, crio, true, Verdict::Bad, "two answers"),
            (Some(crio), None, crio, false, Verdict::Ok, ""),
            (
                None,
                Some(crio),
                containerd,
                true,
                Verdict::Bad,
                "kubelet starts its containers",
            ),
        ] {
            let line = judge_target(&host, &written(config, defaults, kubelet), leads_past);
            assert_eq!(line.verdict, verdict, "{line:?}");
            assert!(line.text.contains(part), "{line:?}");
        }
        // Whoever is alone with his opinion is wrong.
        let line = judge_target(&host, &written(Some(crio), None, containerd), true);
        assert!(line.mend.unwrap().starts_with("sed -i"));
        let line = judge_target(&host, &written(Some(crio), None, crio), true);
        // The command sets one variable, and keeps what else stands there, also behind a line without an end.
        let mend = line.mend.unwrap();
        let (mend, _) = mend.split_once(" && systemctl").unwrap();
        let file = dir.path().join("defaults");
        for (before, after) in [
            ("", ""),
            ("TOKEN=x", "TOKEN=x\n"),
            ("IMAGE_CRI_SHIM_RUNTIME=/old\nTOKEN=x\n", "TOKEN=x\n"),
            ("TOKEN=x\nIMAGE_CRI_SHIM_RUNTIME=\"/old\"", "TOKEN=x\n"),
        ] {
            std::fs::write(&file, before).unwrap();
            let script = mend.replace(DEFAULTS, file.to_str().unwrap());
            let ran = std::process::Command::new("sh")
                .args(["-c", &script])
                .status();
            assert!(ran.unwrap().success(), "{script}");
            assert_eq!(
                std::fs::read_to_string(&file).unwrap(),
                format!("{after}IMAGE_CRI_SHIM_RUNTIME=/var/run/crio/crio.sock\n"),
                "{before:?}"
            );
        }
        let old = Written {
            daemon: Some(PathBuf::from(crio)),
            ..written(None, None, containerd)
        };
        assert_eq!(judge_target(&host, &old, true).verdict, Verdict::Warn);
    }

    #[test]
    fn a_runtime_that_is_away_stuck_or_half_there() {
        let facts = |version, images| Facts {
            socket: PathBuf::from("/var/run/crio/crio.sock"),
            version,
            images,
        };
        let well = facts(Ok(Ok("cri-o 1.33".to_owned())), Ok(Ok(Vec::new())));
        assert!(well.answers());
        assert!(
            judge(&well, None)
                .iter()
                .all(|line| line.verdict == Verdict::Ok)
        );
        let late = Late(Duration::from_secs(3));
        for (version, images, check) in [
            (
                Ok(Err("refused".to_owned())),
                Ok(Err(String::new())),
                "runtime",
            ),
            (Err(late), Err(late), "runtime"),
            (
                Ok(Ok(String::new())),
                Ok(Err("unknown service".to_owned())),
                "runtime.images",
            ),
            (Ok(Ok(String::new())), Err(late), "runtime.images"),
        ] {
            let lines = judge(&facts(version, images), None);
            let bad = lines
                .iter()
                .find(|line| line.verdict == Verdict::Bad)
                .unwrap();
            assert_eq!(bad.check, check);
            assert_eq!(bad.mend.as_deref(), Some("systemctl restart crio"));
        }
    }
}
