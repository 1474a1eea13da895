//! Whether a changed file would silently stop all routing.

use super::raw::RawConfig;
use super::settings::Settings;
use crate::yaml::{self, Node, Value};

/// Whether `new`, in place of `old`, would take away all routing although it doesn't say so: a file that
/// was cut off or emptied must not open an air-gapped site to the outside. `registries: []` and
/// `address: ""` say so. Both are texts of the local file.
pub fn removes_all_routing(old: &str, new: &str) -> bool {
    routes(old) && !routes(new) && !(is_empty(new, "address") && is_empty(new, "registries"))
}

fn routes(text: &str) -> bool {
    let (raw, _) = RawConfig::read(text);
    // What variables hold decides nothing here.
    !Settings::from_raw(&raw, &|_| None).0.rules.is_empty()
}

/// Whether the field is written, and with nothing in it.
fn is_empty(text: &str, field: &str) -> bool {
    let Ok(Node {
        value: Value::Mapping(fields),
        ..
    }) = yaml::parse(text)
    else {
        return false;
    };
    fields.iter().any(|(key, node)| {
        key.name.eq_ignore_ascii_case(field)
            && match &node.value {
                Value::Null => true,
                Value::Scalar(text) => text.trim().is_empty(),
                Value::Sequence(items) => items.is_empty(),
                Value::Mapping(fields) => fields.is_empty(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str =
        "address: http://sealos.hub:5000\nfallbackToOrigin: false\nregistries: [{address: a.io}]\n";

    #[test]
    fn a_file_that_was_emptied_or_cut_off() {
        for new in [
            "",
            "\n",
            "# ours\n",
            "fallbackToOrigin: false\n",
            "registries: []\n",
            "address: ''\n",
            "address: \"\"\nregistries:\n- {}\n",
            // Broken all the more.
            "address: [",
        ] {
            assert!(removes_all_routing(OLD, new), "{new:?}");
        }
        for old in [
            "registries: [{address: a.io}]",
            "imageRedirMapping: [{src: a.io, to: b.io}]",
            "useNodeCache: true",
        ] {
            assert!(removes_all_routing(old, "debug: true\n"), "{old}");
        }
    }

    #[test]
    fn what_is_said_is_done() {
        for new in [
            "registries: []\naddress: \"\"\n",
            "Registries: ~\naddress:\n",
            "registries: [{address: other.io}]\n",
            "imageRedirMapping: [{src: a.io, to: b.io}]\n",
        ] {
            assert!(!removes_all_routing(OLD, new), "{new:?}");
        }
        assert!(!removes_all_routing("debug: true\n", ""));
    }
}
