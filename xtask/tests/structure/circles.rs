//! No module refers to another that refers, by whatever way, to it. A circle means that something small and shared
//! stands in the wrong file: neither module can be read, tested or moved without the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Modules, Segments};
use crate::root;

type Arrows = BTreeMap<String, BTreeMap<String, String>>;

/// One circle, if there is any: each module with the path by which it refers to the next.
fn circle(arrows: &Arrows) -> Option<Vec<String>> {
    fn visit<'a>(
        at: &'a str,
        arrows: &'a Arrows,
        way: &mut Vec<(&'a str, &'a str)>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|(name, _)| *name == at) {
            return Some(
                way[begin..]
                    .iter()
                    .map(|(_, text)| (*text).to_owned())
                    .collect(),
            );
        }
        if !done.insert(at) {
            return None;
        }
        for (to, text) in arrows.get(at).into_iter().flatten() {
            way.push((at, text));
            let found = visit(to, arrows, way, done);
            way.pop();
            if found.is_some() {
                return found;
            }
        }
        None
    }
    let mut done = BTreeSet::new();
    arrows
        .keys()
        .find_map(|name| visit(name, arrows, &mut Vec::new(), &mut done))
}

/// Circles among a target's modules, and among those inside of each.
fn circles(modules: &Modules) -> Vec<String> {
    let parents: Vec<&Segments> = modules.paths().collect();
    let found = parents.into_iter().filter_map(|parent| {
        let links = circle(&modules.arrows(parent))?;
        let place = match parent.is_empty() {
            true => "the crate".to_owned(),
            false => parent.join("::"),
        };
        Some(format!("in {place}:\n    {}", links.join("\n    ")))
    });
    found.collect()
}

#[test]
fn no_crate_has_an_import_circle() {
    let mut found = Vec::new();
    let mut read = 0;
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let folders = crates.map(|entry| entry.unwrap().path());
    for folder in folders.chain([root().join("xtask")]) {
        for target in ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file)) {
            if target.is_file() {
                let modules = Modules::read(&target);
                read += modules.paths().count();
                let name = folder.file_name().unwrap().to_string_lossy();
                found.extend(
                    circles(&modules)
                        .into_iter()
                        .map(|text| format!("{name}, {text}")),
                );
            }
        }
    }
    assert!(read > 300, "only {read} modules were found");
    assert!(
        found.is_empty(),
        "modules refer to each other in a circle. Move what both need to a file of its own, below both:\n{}",
        found.join("\n")
    );
}

#[test]
fn circles_are_found() {
    let cases = [
        "mod a { use crate::b::B; } mod b { use crate::a::A; }",
        "mod a { fn f() { crate::b::g() } } mod b { type T = Vec<super::a::A>; }",
        "mod a { use crate::{x, b::{B, c}}; } mod b { use crate::c; } mod c { use crate::{a as d}; }",
        // Through names that the root passes on.
        "mod a { use crate::B; } mod b { use crate::A; } pub use a::A; pub(crate) use b::B;",
        // One below.
        "mod m { mod a { use super::b::B; } mod b { use crate::m::a::A; } }",
        "mod m { mod a { use super::B; } mod b { fn f() { log!(super::a::A) } } pub(super) use b::B; }",
    ];
    for case in cases {
        assert_eq!(circles(&Modules::of(case)).len(), 1, "{case}");
    }
}

#[test]
fn what_is_no_circle_is_none() {
    let cases = [
        "mod a { use crate::b::B; } mod b { use std::a::A; }",
        "mod a { use crate::b::B; } mod b { #[cfg(test)] mod tests { use crate::a::A; } }",
        "mod a { mod b { use super::c; } mod c {} use b::B; }",
        "mod a { use crate::Shared; } mod b { use crate::Shared; } mod shared {} pub use shared::Shared;",
        "mod a { fn f() { x::crate_::b() } } mod b { use crate::a; }",
    ];
    for case in cases {
        assert_eq!(circles(&Modules::of(case)), [] as [&str; 0], "{case}");
    }
}
