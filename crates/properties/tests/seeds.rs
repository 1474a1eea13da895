//! Every property on its seeds, and on seeds that are damaged: what the fuzz targets check, where no fuzzer runs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use properties::{PROPERTIES, Property};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Damaged seeds that each property is checked with.
const CASES: u32 = 2000;

fn seeds_of(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(name);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{name}");
    seeds.iter().map(|seed| fs::read(seed).unwrap()).collect()
}

/// One kind of damage.
#[derive(Clone, Debug)]
enum Damage {
    Byte(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
    Cut,
    /// The rest of another seed.
    Splice(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<u8>().prop_map(Damage::Byte),
        2 => prop::collection::vec(any::<u8>(), 1..5).prop_map(Damage::Insert),
        2 => "[-:/.,{}\\[\\]\"'#&*!|>%@ \n0-9a-z]{1,3}".prop_map(|text| Damage::Insert(text.into_bytes())),
        2 => (1_usize..20).prop_map(Damage::Remove),
        1 => (1_usize..20).prop_map(Damage::Repeat),
        1 => Just(Damage::Cut),
        1 => any::<prop::sample::Index>().prop_map(Damage::Splice),
    ]
}

/// What a property is checked with, shown as text.
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let damages = prop::collection::vec((any::<prop::sample::Index>(), damage()), 0..6);
    (any::<prop::sample::Index>(), damages).prop_map(move |(seed, damages)| {
        let mut data = seed.get(&seeds).clone();
        for (place, damage) in damages {
            let at = place.index(data.len() + 1);
            let end = |length: usize| (at + length).min(data.len());
            match damage {
                Damage::Byte(byte) => {
                    if let Some(old) = data.get_mut(at) {
                        *old = byte;
                    }
                }
                Damage::Insert(bytes) => {
                    data.splice(at..at, bytes);
                }
                Damage::Remove(length) => {
                    data.drain(at..end(length));
                }
                Damage::Repeat(length) => {
                    let again = data[at..end(length)].to_vec();
                    data.splice(at..at, again);
                }
                Damage::Cut => data.truncate(at),
                Damage::Splice(other) => {
                    let other = other.get(&seeds);
                    data.truncate(at);
                    data.extend_from_slice(&other[at.min(other.len())..]);
                }
            }
        }
        Input(data)
    })
}

fn holds(property: Property) {
    let seeds = seeds_of(property.name);
    for seed in &seeds {
        (property.check)(seed);
    }
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    });
    let checked = runner.run(&damaged(seeds), |Input(data)| {
        let outcome = catch_unwind(|| (property.check)(&data));
        prop_assert!(outcome.is_ok(), "the panic above says why");
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{}: {error}", property.name);
    }
}

macro_rules! properties {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let name = stringify!($name);
                holds(*PROPERTIES.iter().find(|property| property.name == name).unwrap());
            }
        )*

        #[test]
        fn each_has_a_test_a_fuzz_target_and_seeds() {
            let tests = BTreeSet::from([$(stringify!($name)),*]);
            let all: BTreeSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
            assert_eq!(tests, all);
            let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
            let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
            for name in all {
                let target = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
                assert!(target.contains(&format!("\"{name}\"")), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
            let folders = fs::read_dir(fuzz.join("seeds")).unwrap().count();
            assert_eq!(folders, PROPERTIES.len());
        }
    };
}

properties! {
    reference endpoint plan config configmap docker_config manifest_finder hosts_toml challenge range
    oci_manifest wire_edit list_images authority review
}
