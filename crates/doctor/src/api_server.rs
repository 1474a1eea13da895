//! The API server, as far as the shim follows it: whether the ConfigMap can be read, and is good.

use std::sync::Arc;
use std::time::Duration;

use cluster::{ClientProvider, FailureKind, KubeconfigCandidates};
use policy::config::{CONFIG_MAP_KEY, CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE, ConfigMap};

use crate::environment::Environment;
use crate::patience::{Timely, within};
use crate::report::{Area, Line};

/// What the API server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Facts {
    /// No kubeconfig, and no service account: nothing is followed.
    NoClient,
    /// There is no ConfigMap.
    Absent,
    /// It was read; what is wrong with it, by line and field.
    Read {
        /// Each finding, and whether it is an error.
        findings: Vec<(bool, String)>,
    },
    /// It can't be read.
    Failed { kind: FailureKind, message: String },
}

/// The link to the API server that a shim with this environment would use.
pub(crate) fn link(environment: &Environment) -> Arc<ClientProvider> {
    let variables = |name: &str| environment.get(name).map(Into::into);
    let candidates = KubeconfigCandidates::from_variables(&variables);
    Arc::new(ClientProvider::new(candidates))
}

pub(crate) async fn gather(link: &ClientProvider, limit: Duration) -> Timely<Facts> {
    within(limit, async {
        match cluster::read_config_map(link).await {
            Ok(None) => Facts::Absent,
            Ok(Some(map)) => Facts::Read {
                findings: findings(map.text.as_deref().unwrap_or_default()),
            },
            Err(failure) if failure.kind == FailureKind::NoClient => Facts::NoClient,
            Err(failure) => Facts::Failed {
                kind: failure.kind,
                message: failure.message,
            },
        }
    })
    .await
}

fn name() -> String {
    format!("configmap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}")
}

fn findings(text: &str) -> Vec<(bool, String)> {
    let name = name();
    if text.trim().is_empty() {
        return vec![(true, format!("{name} has nothing under {CONFIG_MAP_KEY}"))];
    }
    match ConfigMap::read(text) {
        Err(error) => vec![(true, error.in_file(&name).to_string())],
        Ok((_, findings)) => {
            let all = findings.iter();
            all.map(|finding| (finding.is_error(), finding.in_file(&name).to_string()))
                .collect()
        }
    }
}

/// The lines of it.
pub(crate) fn judge(facts: &Timely<Facts>) -> Vec<Line> {
    const CHECK: &str = "config_map";
    let line = |text: String, mend: String| Line::warn(Area::Cluster, CHECK, text, mend);
    let kubectl = format!("kubectl -n {CONFIG_MAP_NAMESPACE} get configmap {CONFIG_MAP_NAME}");
    let name = name();
    let stale = "changes of the ConfigMap do not reach this node; the file decides";
    match facts {
        Err(late) => vec![line(
            format!("the API server gives no answer: {late}; {stale}"),
            kubectl,
        )],
        Ok(Facts::NoClient) => vec![Line::ok(
            Area::Cluster,
            CHECK,
            format!(
                "this node has no kubeconfig that the shim could use, so the file alone decides, not {name}"
            ),
        )],
        Ok(Facts::Absent) => vec![Line::ok(
            Area::Cluster,
            CHECK,
            format!("the API server answers; there is no {name}, so the file alone decides"),
        )],
        Ok(Facts::Read { findings }) if findings.is_empty() => vec![Line::ok(
            Area::Cluster,
            CHECK,
            format!("the API server answers; {name} is good"),
        )],
        Ok(Facts::Read { findings }) => {
            let edit =
                format!("kubectl -n {CONFIG_MAP_NAMESPACE} edit configmap {CONFIG_MAP_NAME}");
            let all = findings.iter().map(|(is_error, text)| {
                let text = policy::text::one_line(text, 400);
                match is_error {
                    true => Line::bad(Area::Cluster, CHECK, text, edit.clone()),
                    false => line(text, edit.clone()),
                }
            });
            all.collect()
        }
        Ok(Facts::Failed { kind, message }) => {
            let message = policy::text::one_line(message, 300);
            let mend = match kind {
                FailureKind::Forbidden => {
                    "kubectl apply -k deploy/node   # the Role that lets a node read it".to_owned()
                }
                _ => kubectl,
            };
            vec![line(
                format!("{name} can't be read: {message}; {stale}"),
                mend,
            )]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    #[test]
    fn what_the_api_server_said() {
        let failed = |kind| Facts::Failed {
            kind,
            message: "no".to_owned(),
        };
        for (facts, verdict) in [
            (Facts::NoClient, Verdict::Ok),
            (Facts::Absent, Verdict::Ok),
            (
                Facts::Read {
                    findings: findings("registries: []\n"),
                },
                Verdict::Ok,
            ),
            (
                Facts::Read {
                    findings: findings("registries: [\n"),
                },
                Verdict::Bad,
            ),
            (
                Facts::Read {
                    findings: findings(""),
                },
                Verdict::Bad,
            ),
            (failed(FailureKind::Unavailable), Verdict::Warn),
            (failed(FailureKind::Forbidden), Verdict::Warn),
        ] {
            let lines = judge(&Ok(facts));
            assert_eq!(lines[0].verdict, verdict, "{lines:?}");
        }
    }
}
