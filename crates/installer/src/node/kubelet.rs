//! What kubelet is told of its endpoints, and where: flags win over files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{Kind, Unit, is_ours};
use crate::root::Root;
use crate::{Error, env_file, flags};

/// The variable that kubeadm's drop-in leaves to the administrator, and puts last.
pub(crate) const EXTRA_ARGS: &str = "KUBELET_EXTRA_ARGS";
/// Where kubelet says that it is well, unless it is told otherwise.
const HEALTHZ_PORT: u16 = 10248;

/// A kubelet's settings, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Kubelet {
    /// The runtime's endpoint and where it stands.
    pub runtime_endpoint: Option<(String, String)>,
    /// The image service's endpoint and where it stands.
    pub image_endpoint: Option<(String, String)>,
    /// The runtime's endpoint that would count without ours, and where it stands.
    pub(super) behind: Option<(String, String)>,
    /// Where k3s is told to use Docker, by a runtime of its own; `None` where it is not.
    pub(super) docker: Option<String>,
    healthz: Healthz,
}

/// A variable of a unit, and where its value stands.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// What it is in the end.
    pub(crate) value: String,
    /// The file that says so; `None` is the unit itself.
    pub(crate) file: Option<PathBuf>,
}

/// What `unit` gives its service: each name once, as the last place has it, and in the order of these places. Files win
/// over the unit's own `Environment=` (systemd.exec(5)).
pub(crate) fn variables(root: &Root, unit: &Unit) -> Result<Vec<Variable>, Error> {
    let mut variables: Vec<Variable> = Vec::new();
    let mut set = |variable: Variable| {
        variables.retain(|other| other.name != variable.name);
        variables.push(variable);
    };
    for word in unit
        .values("Environment")
        .into_iter()
        .flat_map(flags::words)
    {
        if let Some((name, value)) = word.split_once('=') {
            set(Variable {
                name: name.to_owned(),
                value: value.to_owned(),
                file: None,
            });
        }
    }
    for file in environment_files(unit) {
        let text = read(root, &file)?.unwrap_or_default();
        for env_file::Assignment { name, value, .. } in env_file::assignments(&text) {
            set(Variable {
                name,
                value,
                file: Some(file.clone()),
            });
        }
    }
    Ok(variables)
}

/// What a kubelet is told about its `/healthz`.
#[derive(Clone, Debug, Default)]
struct Healthz {
    port: Option<String>,
    address: Option<String>,
}

/// Where a kubelet with these words on its command line, and this text in its config file, says on `/healthz` that it is
/// well; `None` where it is told not to.
pub fn healthz(words: &[String], config: &str) -> Option<SocketAddr> {
    let mut healthz = Healthz::default();
    healthz.take_config(config);
    healthz.take_flags(words);
    healthz.socket_address()
}

impl Healthz {
    /// What the text of a config file says wins over what was taken before.
    fn take_config(&mut self, text: &str) {
        self.take(
            top_level(text, "healthzPort"),
            top_level(text, "healthzBindAddress"),
        );
    }

    /// What flags say wins over what was taken before.
    fn take_flags(&mut self, words: &[String]) {
        let last = |name| flags::values_of(words, name).pop();
        self.take(last("healthz-port"), last("healthz-bind-address"));
    }

    fn take(&mut self, port: Option<String>, address: Option<String>) {
        self.port = port.or(self.port.take());
        self.address = address.or(self.address.take());
    }

    fn socket_address(&self) -> Option<SocketAddr> {
        let port = self.port.as_deref().and_then(|text| text.parse().ok());
        let port = port.unwrap_or(HEALTHZ_PORT);
        let address = self.address.as_deref();
        let address = address.and_then(|text| text.parse().ok());
        let mut address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if address.is_unspecified() {
            // On all of them: this one is nearest.
            address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        }
        (port != 0).then(|| SocketAddr::new(address, port))
    }
}

impl Kubelet {
    pub(super) fn of(root: &Root, kind: Kind, unit: &Unit) -> Result<Self, Error> {
        match kind {
            Kind::Kubeadm | Kind::Kubelet => Self::under_systemd(root, unit),
            Kind::K3s => Self::in_files(
                root,
                "/etc/rancher/k3s",
                unit,
                &["container-runtime-endpoint", "image-service-endpoint"],
            ),
            Kind::Rke2 => Self::in_files(
                root,
                "/etc/rancher/rke2",
                unit,
                &["container-runtime-endpoint", "image-service-endpoint"],
            ),
            Kind::K0s => Ok(Self::of_k0s(unit)),
        }
    }

    /// As [`healthz`] has it.
    pub(super) fn healthz(&self) -> Option<SocketAddr> {
        self.healthz.socket_address()
    }

    fn under_systemd(root: &Root, unit: &Unit) -> Result<Self, Error> {
        let mut kubelet = Self::default();
        // Files first, flags after: the later one wins.
        for path in [
            config_file(unit),
            PathBuf::from("/var/lib/kubelet/instance-config.yaml"),
        ] {
            let text = read(root, &path)?.unwrap_or_default();
            kubelet.take(
                top_level(&text, "containerRuntimeEndpoint"),
                top_level(&text, "imageServiceEndpoint"),
                &path.display().to_string(),
            );
            kubelet.healthz.take_config(&text);
        }
        for start in unit.values("ExecStart") {
            kubelet.take_flags(start, "ExecStart of kubelet.service");
        }
        for variable in variables(root, unit)? {
            let place = match &variable.file {
                Some(file) => format!("{} in {}", variable.name, file.display()),
                None => format!("{} in kubelet.service", variable.name),
            };
            kubelet.take_flags(&variable.value, &place);
        }
        Ok(kubelet)
    }

    fn in_files(root: &Root, folder: &str, unit: &Unit, keys: &[&str; 2]) -> Result<Self, Error> {
        let mut kubelet = Self::default();
        let mut files = vec![PathBuf::from(folder).join("config.yaml")];
        let drop_ins = Path::new(folder).join("config.yaml.d");
        let names = root
            .list(&drop_ins)
            .map_err(|e| Error::at("read", &drop_ins, e))?;
        files.extend(
            names
                .iter()
                .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"))
                .map(|name| drop_ins.join(name)),
        );
        let [runtime, image] = keys;
        for file in files {
            let text = read(root, &file)?.unwrap_or_default();
            kubelet.take_docker(top_level(&text, "docker"), &file.display().to_string());
            kubelet.take(
                top_level(&text, runtime),
                top_level(&text, image),
                &file.display().to_string(),
            );
            // `kubelet-arg: [image-service-endpoint=…]`, in a list or on a line.
            for line in text.lines().filter(|line| !line.trim().starts_with('#')) {
                if let Some(value) = kubelet_argument(line, image) {
                    kubelet.take(None, Some(value), &file.display().to_string());
                }
            }
        }
        for start in unit.values("ExecStart") {
            let place = format!("ExecStart of {}", unit.name);
            kubelet.take_docker(flags::switch(start, "docker"), &place);
            kubelet.take_flags(start, &place);
        }
        Ok(kubelet)
    }

    fn of_k0s(unit: &Unit) -> Self {
        let mut kubelet = Self::default();
        for start in unit.values("ExecStart") {
            let place = format!("ExecStart of {}", unit.name);
            for socket in flags::values(start, "cri-socket") {
                // `remote:unix:///run/…`
                let endpoint = socket
                    .split_once(':')
                    .map_or(socket.as_str(), |(_, end)| end);
                kubelet.take(Some(endpoint.to_owned()), None, &place);
            }
            for arguments in flags::values(start, "kubelet-extra-args") {
                kubelet.take_flags(&arguments, &place);
            }
        }
        kubelet
    }

    fn take_flags(&mut self, arguments: &str, place: &str) {
        let words = flags::words(arguments);
        // Ours may stand behind the one that it takes the place of.
        for runtime in flags::values_of(&words, "container-runtime-endpoint") {
            self.take(Some(runtime), None, place);
        }
        let image = flags::values_of(&words, "image-service-endpoint").pop();
        self.take(None, image, place);
        self.healthz.take_flags(&words);
    }

    /// `told` is a boolean as Go's flags have it.
    fn take_docker(&mut self, told: Option<String>, place: &str) {
        if let Some(told) = told {
            let is_on = matches!(told.to_ascii_lowercase().as_str(), "true" | "t" | "1");
            self.docker = is_on.then(|| format!("`docker` in {place}"));
        }
    }

    fn take(&mut self, runtime: Option<String>, image: Option<String>, place: &str) {
        let told = |endpoint: Option<String>| {
            endpoint
                .filter(|endpoint| !endpoint.is_empty())
                .map(|endpoint| (endpoint, place.to_owned()))
        };
        let runtime = told(runtime);
        let others = runtime.clone().filter(|(endpoint, _)| !is_ours(endpoint));
        self.behind = others.or(self.behind.take());
        self.runtime_endpoint = runtime.or(self.runtime_endpoint.take());
        self.image_endpoint = told(image).or(self.image_endpoint.take());
    }
}

/// The config that the unit names, in its command or in one of its variables; else kubeadm's.
fn config_file(unit: &Unit) -> PathBuf {
    let variables = unit
        .values("Environment")
        .into_iter()
        .flat_map(flags::words);
    let variables: Vec<String> = variables
        .filter_map(|word| Some(word.split_once('=')?.1.to_owned()))
        .collect();
    let starts = unit.values("ExecStart");
    let told = starts
        .into_iter()
        .chain(variables.iter().map(String::as_str))
        .flat_map(|arguments| flags::values(arguments, "config"))
        .next_back();
    PathBuf::from(told.unwrap_or_else(|| "/var/lib/kubelet/config.yaml".to_owned()))
}

/// The files that a unit takes variables from, without the `-` that lets them be absent.
pub(crate) fn environment_files(unit: &Unit) -> Vec<PathBuf> {
    unit.values("EnvironmentFile")
        .into_iter()
        .map(|file| PathBuf::from(file.trim_start_matches('-')))
        .collect()
}

/// A scalar at the top level of a YAML mapping, without its quotes.
pub fn top_level(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))
        .map(|value| {
            let value = value.split(" #").next().unwrap_or_default();
            value.trim().trim_matches(['"', '\'']).to_owned()
        })
        .rfind(|value| !value.is_empty())
}

/// The value of a kubelet argument that is written in a list of YAML: `- "name=value"`, `[name=value]`.
fn kubelet_argument(line: &str, name: &str) -> Option<String> {
    let at = line.find(&format!("{name}="))?;
    let rest = line.get(at + name.len() + 1..)?;
    let end = rest.find(['"', '\'', ',', ']', ' ']).unwrap_or(rest.len());
    rest.get(..end).map(str::to_owned)
}

fn read(root: &Root, path: impl AsRef<Path>) -> Result<Option<String>, Error> {
    root.read(&path)
        .map_err(|e| Error::at("read", path.as_ref(), e))
}
