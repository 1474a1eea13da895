//! A Pod as log lines name it.

use std::fmt;

use policy::pod::Pod;

use crate::review::Request;

/// Longest name that Kubernetes would accept.
const NAME_LENGTH: usize = 253;

/// `namespace/name`, or `namespace/generateName*` where the API server is to make the name up, with the
/// object that manages the Pod.
pub(super) struct Shown<'r> {
    namespace: &'r str,
    name: &'r str,
    is_generated: bool,
    owner: Option<String>,
}

impl<'r> Shown<'r> {
    pub(super) fn of(request: &'r Request<Pod>) -> Self {
        let pod = request.object.as_ref();
        let metadata = pod.and_then(|pod| pod.metadata.as_ref());
        let named = request.name.as_deref().filter(|name| !name.is_empty());
        let generated = metadata.and_then(|metadata| metadata.generate_name.as_deref());
        let generated = generated.filter(|name| !name.is_empty());
        Self {
            namespace: request.namespace.as_deref().unwrap_or_default(),
            name: named.or(generated).unwrap_or(&request.uid),
            is_generated: named.is_none() && generated.is_some(),
            owner: pod.and_then(Pod::owner),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_generated { "*" } else { "" };
        write!(f, "{}/{}{star}", text(self.namespace), text(self.name))?;
        match &self.owner {
            Some(owner) => write!(f, " of {}", text(owner)),
            None => Ok(()),
        }
    }
}

/// Names are validated only after admission: until then they may hold anything, line breaks for our log
/// among it.
pub(super) fn text(name: &str) -> impl fmt::Display + '_ {
    let end = name.char_indices().nth(NAME_LENGTH).map(|(at, _)| at);
    name[..end.unwrap_or(name.len())].escape_debug()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(name: &str, object: serde_json::Value) -> String {
        let request = Request::<Pod> {
            uid: "a-uid".to_owned(),
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            object: serde_json::from_value(object).unwrap(),
            ..Request::default()
        };
        Shown::of(&request).to_string()
    }

    #[test]
    fn a_name_is_one_line_of_the_log() {
        let name = shown("x\nWARN forged\u{1b}[31m", json!({}));
        assert_eq!(name, r"default/x\nWARN forged\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(1000), json!({})).len(), 8 + NAME_LENGTH);
    }

    #[test]
    fn a_name_that_is_to_be_made_up() {
        let owned = json!({"metadata": {"generateName": "web-7d4-", "ownerReferences":
            [{"kind": "ReplicaSet", "name": "web-7d4", "controller": true}]}});
        assert_eq!(
            shown("", owned.clone()),
            "default/web-7d4-* of ReplicaSet/web-7d4"
        );
        assert_eq!(shown("web", owned), "default/web of ReplicaSet/web-7d4");
        assert_eq!(
            shown("", json!({"metadata": {"generateName": "run-"}})),
            "default/run-*"
        );
        assert_eq!(shown("", json!({})), "default/a-uid");
    }
}
