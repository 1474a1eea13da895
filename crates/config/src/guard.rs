//! Configs that would open a site to the outside by accident.

use policy::config::removes_all_routing;

use crate::file::Loaded;

const ADVICE: &str =
    "where no registry is meant, write `registries: []` and `address: \"\"`, which say so";

/// Why `new` must not replace `old`, the last good text of the file `name`: it is empty, or would take away all
/// routing without saying so, as a file does that was cut off.
pub(crate) fn opens_the_site(name: &str, old: &str, new: &Loaded) -> Option<String> {
    if is_emptied(old, &new.text) {
        return Some(format!("{name} is empty; {ADVICE}"));
    }
    removes_all_routing(old, &new.text).then(|| lost(name))
}

/// Whether `new` is one of those that must not replace `old`.
pub(crate) fn loses_all(old: &str, new: &str) -> bool {
    is_emptied(old, new) || removes_all_routing(old, new)
}

fn is_emptied(old: &str, new: &str) -> bool {
    new.trim().is_empty() && !old.trim().is_empty()
}

/// The same for a ConfigMap that is a config of its own; `routed` is whether the one in force routes anything.
pub(crate) fn config_map_opens_the_site(name: &str, routed: bool, new: &Loaded) -> Option<String> {
    let lists = new.raw.registries.is_some() || new.raw.redirects.is_some();
    let opens = routed && new.settings.rules.is_empty() && !lists;
    opens.then(|| lost(name))
}

fn lost(name: &str) -> String {
    format!(
        "{name} names no registry and no redirect any more, so every pull would go to its origin; {ADVICE}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    fn loaded(text: &str) -> Loaded {
        file::understand("f".as_ref(), text.to_owned())
            .ok()
            .unwrap()
    }

    #[test]
    fn nothing_is_lost_by_accident() {
        let old = "address: http://a.io\nfallbackToOrigin: false\n";
        for text in ["", "\n \n", "# cut\n", "fallbackToOrigin: false\n"] {
            let why = opens_the_site("f", old, &loaded(text)).unwrap();
            assert!(why.contains("registries: []"), "{why}");
        }
        // Also where only the origin was closed.
        assert!(opens_the_site("f", "fallbackToOrigin: false\n", &loaded("")).is_some());
        for text in ["registries: []\naddress: \"\"\n", "address: b.io\n"] {
            assert_eq!(opens_the_site("f", old, &loaded(text)), None, "{text}");
        }
        assert_eq!(opens_the_site("f", "", &loaded("")), None);
    }

    #[test]
    fn the_same_for_a_config_map() {
        let opens = |text: &str| config_map_opens_the_site("c", true, &loaded(text));
        assert!(opens("debug: true\n").is_some());
        assert_eq!(opens("registries: []\n"), None);
        let first = config_map_opens_the_site("c", false, &loaded("debug: true"));
        assert_eq!(first, None);
    }
}
