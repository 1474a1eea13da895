//! Kubelet's credential-provider plugins: their config file, which images they are for, and what they
//! say (`kubelet.config.k8s.io/v1` and `credentialprovider.kubelet.k8s.io/v1`).

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::diagnostic::Diagnostic;
use super::fields::Fields;
use crate::host_pattern::matches_image;
use crate::yaml::{self, Node, Value};
use crate::{Credentials, duration};

/// API group of what is said to a plugin and back.
const GROUP: &str = "credentialprovider.kubelet.k8s.io/";

/// One plugin of the config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProvider {
    /// Name of its program in the directory of plugins.
    pub name: String,
    /// Version it speaks, such as `credentialprovider.kubelet.k8s.io/v1`.
    pub api_version: String,
    /// Which images it is asked about; see [`matches_image`](crate::host_pattern::matches_image).
    pub match_images: Vec<String>,
    /// How long what it says is good where it doesn't say so itself.
    pub default_cache_duration: Duration,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables it gets beside ours.
    pub env: Vec<(String, String)>,
}

impl CredentialProvider {
    /// Reads each `CredentialProviderConfig`, YAML or JSON, of the pairs of path and text, as one list in
    /// their order. A plugin that can't be used as it is written is left out. The second part says so: one
    /// line for people each, with the file's path.
    pub fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Vec<Self>, Vec<String>) {
        let mut providers = Vec::new();
        let mut problems = Vec::new();
        for (path, text) in files {
            let findings = read_more(text, &mut providers);
            let errors = findings.iter().filter(|finding| finding.is_error());
            problems.extend(errors.map(|error| error.in_file(path).to_string()));
        }
        (providers, problems)
    }

    /// Whether it is asked about `image`, a name without tag and digest.
    pub fn is_for(&self, image: &str) -> bool {
        self.match_images
            .iter()
            .any(|pattern| matches_image(pattern, image))
    }

    /// What it is told on standard input.
    pub fn request(&self, image: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Request<'a> {
            api_version: &'a str,
            kind: &'a str,
            image: &'a str,
        }
        let request = Request {
            api_version: &self.api_version,
            kind: "CredentialProviderRequest",
            image,
        };
        // Three strings always serialize.
        serde_json::to_string(&request).unwrap_or_default()
    }
}

/// Adds the plugins of one text.
fn read_more(text: &str, providers: &mut Vec<CredentialProvider>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            findings.push(Diagnostic::not_yaml(error));
            return findings;
        }
    };
    let mut fields = Fields::open(root, "", &mut findings);
    fields.text("apiVersion");
    fields.text("kind");
    let list = fields.list("providers", false);
    fields.finish();
    let nodes = list.map(|list| list.value).into_iter().flatten();
    for (at, node) in nodes.enumerate() {
        let path = format!("providers[{}]", at + 1);
        let position = node.position;
        let Some(provider) = provider(node, &path, &mut findings) else {
            continue;
        };
        // kubelet takes no config at all with such a pair, so nobody can mean both.
        if providers.iter().any(|before| before.name == provider.name) {
            let message = format!(
                "there is a provider `{}` already; give each a name of its own",
                provider.name
            );
            findings.push(Diagnostic::error(position, path, message));
            continue;
        }
        providers.push(provider);
    }
    findings
}

fn provider(node: Node, path: &str, findings: &mut Vec<Diagnostic>) -> Option<CredentialProvider> {
    let position = node.position;
    let before = findings.len();
    let mut fields = Fields::open(node, path, findings);
    let name = fields.text("name").map(|name| name.value);
    let api_version = fields.text("apiVersion").map(|version| version.value);
    let cache = fields.duration("defaultCacheDuration");
    let match_images = texts(&mut fields, "matchImages");
    let args = texts(&mut fields, "args");
    let env = fields.list("env", false).map(|list| list.value);
    let service_account = fields.node("tokenAttributes").is_some();
    fields.finish();
    let env = env
        .into_iter()
        .flatten()
        .filter_map(|node| {
            let mut fields = Fields::open(node, format!("{path}.env"), findings);
            let name = fields.text("name")?.value;
            let value = fields.text("value").map(|value| value.value);
            Some((name, value.unwrap_or_default()))
        })
        .collect();
    let mut refuse = |message: &str| {
        findings.push(Diagnostic::error(position, path, message));
    };
    let name = name.filter(|name| !name.contains('/') && name != "." && name != "..");
    let Some(name) = name else {
        refuse(
            "no name, or one with `/`; write the name of a program in imageCredentialProviderBinDir",
        );
        return None;
    };
    let api_version = api_version.filter(|version| version.starts_with(GROUP));
    let Some(api_version) = api_version else {
        refuse("no apiVersion that is known; write `credentialprovider.kubelet.k8s.io/v1`");
        return None;
    };
    if service_account {
        refuse(
            "it wants the Pod's service account token (tokenAttributes), which a shim doesn't have",
        );
        return None;
    }
    (findings.len() == before || !findings.iter().skip(before).any(Diagnostic::is_error)).then(
        || CredentialProvider {
            name,
            api_version,
            match_images,
            default_cache_duration: cache.map_or(Duration::ZERO, |cache| cache.value),
            args,
            env,
        },
    )
}

fn texts(fields: &mut Fields<'_>, name: &'static str) -> Vec<String> {
    let list = fields.list(name, false).map(|list| list.value);
    list.into_iter()
        .flatten()
        .filter_map(|node| match node.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        })
        .collect()
}

/// For what else an answer may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum CacheKeyType {
    /// This image alone.
    Image,
    /// Every image of the registry.
    Registry,
    /// Every image.
    Global,
}

/// What a plugin said. Masked in debug output.
#[derive(Clone, Debug)]
pub struct ProviderAnswer {
    /// For what else it may be used.
    pub cache_key_type: CacheKeyType,
    /// How long it is good; zero is for this once.
    pub good_for: Duration,
    auth: BTreeMap<String, Pair>,
}

#[derive(Clone, Debug, Deserialize)]
struct Pair {
    #[serde(default = "empty")]
    username: SecretString,
    #[serde(default = "empty")]
    password: SecretString,
}

fn empty() -> SecretString {
    SecretString::from(String::new())
}

/// Why an answer can't be used. The text never repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProviderAnswerError {
    /// Not a `CredentialProviderResponse`.
    #[error("its answer is no CredentialProviderResponse")]
    Form,
    /// Another version than the one it was asked in.
    #[error("it answers in another apiVersion than the one it is configured with")]
    Version,
    /// `cacheDuration` is no duration.
    #[error("its cacheDuration is no duration such as `6h0m0s`")]
    CacheDuration,
}

impl ProviderAnswer {
    /// Reads what `provider` wrote to standard output.
    ///
    /// # Errors
    /// It is not of the form that the protocol has.
    pub fn read(provider: &CredentialProvider, text: &str) -> Result<Self, ProviderAnswerError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Response {
            kind: String,
            api_version: String,
            cache_key_type: CacheKeyType,
            cache_duration: Option<String>,
            #[serde(default)]
            auth: Option<BTreeMap<String, Pair>>,
        }
        let response: Response =
            serde_json::from_str(text).map_err(|_| ProviderAnswerError::Form)?;
        if response.kind != "CredentialProviderResponse" {
            return Err(ProviderAnswerError::Form);
        }
        if response.api_version != provider.api_version {
            return Err(ProviderAnswerError::Version);
        }
        let good_for = match response.cache_duration {
            None => provider.default_cache_duration,
            Some(text) => duration::parse(&text).map_err(|_| ProviderAnswerError::CacheDuration)?,
        };
        Ok(Self {
            cache_key_type: response.cache_key_type,
            good_for,
            auth: response.auth.unwrap_or_default(),
        })
    }

    /// The credentials for `image`: those of the longest pattern that matches.
    pub fn credentials(&self, image: &str) -> Option<Credentials> {
        self.auth
            .iter()
            .filter(|(pattern, _)| matches_image(pattern, image))
            .max_by_key(|(pattern, _)| pattern.len())
            .map(|(_, pair)| {
                Credentials::new(pair.username.expose_secret(), pair.password.expose_secret())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
        - name: ecr-credential-provider\n  matchImages: ['*.dkr.ecr.*.amazonaws.com']\n  defaultCacheDuration: 12h\n  \
        apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get-credentials]\n  env: [{name: A, value: b}]\n";

    fn read(text: &str) -> (Vec<CredentialProvider>, Vec<String>) {
        CredentialProvider::read([("config.yaml", text)])
    }

    #[test]
    fn the_config_of_a_real_node() {
        let (providers, problems) = read(CONFIG);
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            providers,
            [CredentialProvider {
                name: "ecr-credential-provider".to_owned(),
                api_version: "credentialprovider.kubelet.k8s.io/v1".to_owned(),
                match_images: vec!["*.dkr.ecr.*.amazonaws.com".to_owned()],
                default_cache_duration: Duration::from_secs(12 * 3600),
                args: vec!["get-credentials".to_owned()],
                env: vec![("A".to_owned(), "b".to_owned())],
            }]
        );
        assert!(providers[0].is_for("1.dkr.ecr.eu-west-1.amazonaws.com/mirror"));
        assert_eq!(
            providers[0].request("a.io/b"),
            r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"a.io/b"}"#
        );
    }

    #[test]
    fn plugins_that_can_not_be_used_are_left_out() {
        let (providers, problems) = read(
            &CONFIG
                .replace("name: ecr", "name: ../ecr")
                .replace("providers:\n", "providers:\n- {name: x, apiVersion: other/v1}\n- {name: y, apiVersion: credentialprovider.kubelet.k8s.io/v1, tokenAttributes: {}}\n"),
        );
        assert_eq!(providers, []);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(read("[").1.len(), 1);
    }

    #[test]
    fn several_files_are_one_list_without_two_of_one_name() {
        let other = CONFIG.replace("name: ecr-credential-provider", "name: acr");
        let files = [
            ("10.yaml", CONFIG),
            ("20.json", "["),
            ("30.yml", other.as_str()),
            ("40.yaml", CONFIG),
        ];
        let (providers, problems) = CredentialProvider::read(files);
        let names: Vec<&str> = providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["ecr-credential-provider", "acr"]);
        let [broken, twice] = problems.try_into().unwrap();
        assert!(broken.starts_with("20.json:"), "{broken}");
        assert_eq!(
            twice,
            "40.yaml:4:3: error: providers[1]: there is a provider `ecr-credential-provider` already; \
             give each a name of its own"
        );
    }

    #[test]
    fn kubelets_matching() {
        for (pattern, image, matches) in [
            ("*.azurecr.io", "a.azurecr.io/x", true),
            ("*.azurecr.io", "a.b.azurecr.io/x", false),
            ("azurecr.io", "a.azurecr.io", false),
            ("registry.io:8080/path", "registry.io:8080/path/x", true),
            ("registry.io:8080/path", "registry.io:8080/other", false),
            ("registry.io", "registry.io:8080/x", false),
            (
                "123*.dkr.ecr.*.amazonaws.com",
                "1234.dkr.ecr.eu.amazonaws.com/x",
                true,
            ),
            ("a?.io", "ab.io", true),
            ("*", "anything", true),
            ("*.*", "two.parts", true),
            ("https://a.io/p", "a.io/p/q", true),
        ] {
            assert_eq!(matches_image(pattern, image), matches, "{pattern} {image}");
        }
    }

    #[test]
    fn answers() {
        let provider = &read(CONFIG).0[0];
        let answer = |text: &str| {
            ProviderAnswer::read(
                provider,
                &text.replace("HEAD", r#""kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1""#),
            )
        };
        let good = answer(
            r#"{HEAD,"cacheKeyType":"Registry","cacheDuration":"6h0m0s","auth":{"*.io":{"username":"a","password":"b"},"x.io/team":{"username":"c","password":"hunter2"}}}"#,
        )
        .unwrap();
        assert_eq!(good.good_for, Duration::from_secs(6 * 3600));
        assert_eq!(good.cache_key_type, CacheKeyType::Registry);
        assert_eq!(
            good.credentials("x.io/team/app"),
            Some(Credentials::new("c", "hunter2"))
        );
        assert_eq!(
            good.credentials("y.io/app"),
            Some(Credentials::new("a", "b"))
        );
        assert_eq!(good.credentials("y.z.io/app"), None);
        assert!(!format!("{good:?}").contains("hunter2"));
        let bare = answer(r#"{HEAD,"cacheKeyType":"Global","auth":null}"#).unwrap();
        assert_eq!(bare.good_for, provider.default_cache_duration);
        for (bad, error) in [
            ("hunter2", ProviderAnswerError::Form),
            (
                r#"{HEAD,"cacheKeyType":"Never"}"#,
                ProviderAnswerError::Form,
            ),
            (
                r#"{"kind":"CredentialProviderResponse","apiVersion":"x/v1","cacheKeyType":"Image"}"#,
                ProviderAnswerError::Version,
            ),
            (
                r#"{HEAD,"cacheKeyType":"Image","cacheDuration":"1d"}"#,
                ProviderAnswerError::CacheDuration,
            ),
        ] {
            assert_eq!(answer(bad).unwrap_err(), error, "{bad}");
        }
    }
}
