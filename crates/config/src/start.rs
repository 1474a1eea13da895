//! The config to start with, also where the file can't be used.

use std::path::{Path, PathBuf};

use policy::config::{
    BrokenText, RawConfig, Settings, StartConfig, StartRefusal, start_without_file, without_rules,
};

use crate::file::{self, Loaded};
use crate::last_good::LastGood;
use crate::{ConfigError, guard, variable};

/// What to start with. No `Debug`: it holds credentials.
pub struct Start {
    /// The config.
    pub loaded: Loaded,
    /// Where that is not what the file says: what is wrong with the file.
    pub broken_file: Option<BrokenFile>,
}

/// A file that can't be used at start. No `Debug`: it may hold credentials.
pub struct BrokenFile {
    /// What is wrong with it.
    pub(crate) problem: String,
    /// Its text, or why there is none.
    pub(crate) looked: Result<String, String>,
    /// What is used in its place.
    pub(crate) in_place: InPlace,
}

/// What is used in place of a file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    /// The last good config, kept in this file.
    LastGood(PathBuf),
    /// A config without rules.
    ForwardAll,
}

impl BrokenFile {
    /// Says in the log what is used in its place, and why.
    pub fn announce(&self) {
        let problem = self.problem.replace('\n', "; ");
        match &self.in_place {
            InPlace::LastGood(path) => tracing::warn!(
                "keeping the last good config, from {}: {problem}",
                path.display()
            ),
            InPlace::ForwardAll => tracing::error!(
                "there is no config that can be used, and no last good one: every call is forwarded as it comes, and every pull goes to its origin, until the file is mended: {problem}"
            ),
        }
    }

    /// One sentence: what is used in its place.
    pub fn used_in_place(&self) -> String {
        match &self.in_place {
            InPlace::LastGood(path) => format!("the last good config, {}, is used", path.display()),
            InPlace::ForwardAll => {
                "every call is forwarded as it comes, since there is no last good config".to_owned()
            }
        }
    }
}

/// Reads the file. Where it can't be used and somebody `must_serve` all the same, the last good config is used in its
/// place, and where there is none, a config that forwards everything.
///
/// The service of a node must serve. Somebody who starts the shim by hand sees the error, and who takes over from a shim
/// that still serves leaves that to it.
///
/// # Errors
/// The file can't be used, and nothing may take its place: nobody must serve, `strict: true`, or a site that must not
/// touch the outside would be opened.
pub fn load(path: &Path, must_serve: bool) -> Result<Start, ConfigError> {
    load_with(path, must_serve, &state_dir(""))
}

/// `default_dir` is the state directory where the file names none.
fn load_with(path: &Path, must_serve: bool, default_dir: &Path) -> Result<Start, ConfigError> {
    let read = file::read(path);
    let looked = match &read {
        Ok(text) => Ok(text.clone()),
        Err(error) => Err(error.to_string()),
    };
    let understood = read.and_then(|text| file::understand(path, text));
    if !must_serve {
        return as_it_is(understood?);
    }
    let text = match &looked {
        Ok(text) => text.clone(),
        Err(_) => file::read_lossy(path),
    };
    let dir = match names_state_dir(&text) {
        true => state_dir(&text),
        false => default_dir.to_owned(),
    };
    let (kept, kept_in) = LastGood::find(path, &dir).unzip();
    let (problem, cut_off) = match understood {
        Ok(loaded) => match lost_from(path, &loaded, kept.as_ref()) {
            None => return as_it_is(loaded),
            Some(lost) => (ConfigError::Opens(lost), Some(loaded)),
        },
        Err(error) => (error, None),
    };
    let broken = match &cut_off {
        Some(_) => BrokenText::CutOff(&text),
        None => BrokenText::Unusable(&text),
    };
    let last_good = kept.as_ref().map(|kept| kept.text.as_str());
    let decided = start_without_file(broken, last_good, &variable);
    let (text, in_place) = match (decided, cut_off, kept, kept_in) {
        (StartConfig::LastGood, _, Some(kept), Some(path)) => (kept.text, InPlace::LastGood(path)),
        (StartConfig::LastGood, ..) => return Err(problem),
        // It is a config, and opens nothing that the last good one, which can't be used any more, kept closed.
        (StartConfig::ForwardAll(_), Some(loaded), ..) => return as_it_is(loaded),
        (StartConfig::ForwardAll(text), ..) => (text, InPlace::ForwardAll),
        // It names no registry, but opens nothing either.
        (StartConfig::Refuse(StartRefusal::ClosedSite), Some(loaded), ..)
            if !loaded.settings.rules.fallback_to_origin =>
        {
            return as_it_is(loaded);
        }
        (StartConfig::Refuse(why), ..) => {
            return Err(ConfigError::Refused {
                problem: Box::new(problem),
                why,
            });
        }
    };
    let from = match &in_place {
        InPlace::LastGood(kept_in) => kept_in.clone(),
        InPlace::ForwardAll => path.to_owned(),
    };
    Ok(Start {
        loaded: file::understand(&from, text)?,
        broken_file: Some(BrokenFile {
            problem: problem.to_string(),
            looked,
            in_place,
        }),
    })
}

fn as_it_is(loaded: Loaded) -> Result<Start, ConfigError> {
    Ok(Start {
        loaded,
        broken_file: None,
    })
}

/// What a file that can be understood seems to have lost since the last good config.
fn lost_from(path: &Path, loaded: &Loaded, kept: Option<&LastGood>) -> Option<String> {
    let kept = kept.filter(|kept| !kept.relies_on_config_map)?;
    guard::opens_the_site(&path.display().to_string(), &kept.text, loaded)
}

/// Whether the text says where state is kept, as far as it can be read.
fn names_state_dir(text: &str) -> bool {
    let text = without_rules(text, &variable);
    RawConfig::read(&text).0.image.is_some()
}

/// The state directory that the text names; the default one where that can't be read.
fn state_dir(text: &str) -> PathBuf {
    let text = without_rules(text, &variable);
    Settings::read(&text, &variable).0.state_dir
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new(last_good: Option<&str>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let world = Self { dir };
            if let Some(text) = last_good {
                world.keep(text, &world.file(), false);
            }
            world
        }

        fn keep(&self, text: &str, of: &Path, relies_on_config_map: bool) {
            let kept = LastGood {
                text: text.to_owned(),
                relies_on_config_map,
            };
            file::put(&self.kept_in(), &kept.stored(of)).unwrap();
        }

        fn kept_in(&self) -> PathBuf {
            self.dir.path().join("last-good.yaml")
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("config.yaml")
        }

        /// The line of a config that says where state is kept.
        fn image(&self) -> String {
            format!("image: {}\n", self.dir.path().display())
        }

        fn start(&self, must_serve: bool) -> Result<Start, String> {
            load_with(&self.file(), must_serve, self.dir.path()).map_err(|error| error.to_string())
        }

        fn start_with(&self, text: impl AsRef<[u8]>) -> Result<Start, String> {
            fs::write(self.file(), text).unwrap();
            self.start(true)
        }
    }

    fn in_place(start: &Start) -> &InPlace {
        &start.broken_file.as_ref().unwrap().in_place
    }

    const GOOD: &str = "address: http://good.io\n";

    #[test]
    fn whatever_is_wrong_with_the_file_the_last_good_config_serves() {
        let world = World::new(Some(GOOD));
        let dir = world.image();
        let texts: [Vec<u8>; 6] = [
            format!("{dir}timeout: soon\n").into(),
            format!("{dir}timeout: [\n").into(),
            [dir.as_bytes(), b"\xff\xfe"].concat(),
            // It was emptied, or cut off.
            Vec::new(),
            dir.clone().into(),
            [dir.as_bytes(), &[b'#'; 9 << 20]].concat(),
        ];
        for text in texts {
            let start = world.start_with(&text).unwrap();
            let shown = String::from_utf8_lossy(&text[..text.len().min(90)]).into_owned();
            assert_eq!(start.loaded.text, GOOD, "{shown}");
            let expected = InPlace::LastGood(world.kept_in());
            assert_eq!(*in_place(&start), expected, "{shown}");
        }
        fs::remove_file(world.file()).unwrap();
        let start = world.start(true).unwrap();
        assert!(start.broken_file.unwrap().problem.contains("cannot read"));
        // By hand it is an error.
        assert!(world.start(false).is_err());
        // A pipe that nobody writes to is not waited for.
        let made = std::process::Command::new("mkfifo")
            .arg(world.file())
            .status();
        assert!(made.unwrap().success());
        let start = world.start(true).unwrap();
        assert_eq!(start.loaded.text, GOOD);
    }

    #[test]
    fn without_one_everything_is_forwarded() {
        let world = World::new(None);
        let broken = "address: http://a.io\ntimeout: soon\n";
        let start = world.start_with(broken).unwrap();
        assert!(start.loaded.settings.rules.is_empty());
        assert_eq!(*in_place(&start), InPlace::ForwardAll);
        // An empty file is a config.
        assert!(world.start_with("").unwrap().broken_file.is_none());
        // That of another file, or half of one, is none.
        world.keep(GOOD, Path::new("/etc/other.yaml"), false);
        let start = world.start_with(broken).unwrap();
        assert_eq!(*in_place(&start), InPlace::ForwardAll);
        fs::write(world.kept_in(), GOOD).unwrap();
        let start = world.start_with(broken).unwrap();
        assert_eq!(*in_place(&start), InPlace::ForwardAll);
    }

    #[test]
    fn a_good_file_is_used_as_it_is() {
        let world = World::new(Some(GOOD));
        let dir = world.image();
        for text in ["address: http://b.io\n", "registries: []\naddress: ''\n"] {
            let start = world.start_with(format!("{dir}{text}")).unwrap();
            assert!(start.broken_file.is_none(), "{text}");
        }
        // Its rules were the ConfigMap's, so it has lost none.
        world.keep(GOOD, &world.file(), true);
        assert!(world.start_with(&dir).unwrap().broken_file.is_none());
    }

    #[test]
    fn a_site_that_must_stay_closed_refuses() {
        let world = World::new(None);
        for text in [
            &b"fallbackToOrigin: false\ntimeout: [\n"[..],
            b"fallbackToOrigin: false\ntimeout: soon\n",
            b"fallbackToOrigin: false\n\xff\n",
            b"bypass: false\ntimeout: [\n",
        ] {
            let error = world.start_with(text).err().unwrap();
            assert!(error.contains("is not opened by a mistake"), "{error}");
        }
        let error = world
            .start_with("strict: true\ntimeout: [\n")
            .err()
            .unwrap();
        assert!(error.contains("strict: true"), "{error}");
        // A good file that only closes it is used.
        let world = World::new(Some(GOOD));
        let dir = world.image();
        let start = world.start_with(format!("{dir}fallbackToOrigin: false\n"));
        assert!(start.unwrap().broken_file.is_none());
        // The last good config of such a site is as closed.
        let world = World::new(Some("address: a.io\nfallbackToOrigin: false\n"));
        let dir = world.image();
        let start = world.start_with(format!("{dir}fallbackToOrigin: false\ntimeout: [\n"));
        assert!(!start.unwrap().loaded.settings.rules.fallback_to_origin);
    }
}
