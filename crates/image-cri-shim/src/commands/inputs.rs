//! Which images a command is about: arguments, lists, manifests.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use policy::placeholder::is_placeholder;
use policy::text::{decode, one_line};
use policy::{Reference, manifest};

/// More than any manifest; a mistaken path (a device, an image) is refused instead of read.
const MAX_TEXT: u64 = 64 * 1024 * 1024;
/// Standard input, as an image or as a manifest.
const STDIN: &str = "-";

/// An image, and where it was named if in a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) image: String,
    pub(crate) place: Option<String>,
    /// It is to be kept whatever happens: `retain` of kuik's CachedImage.
    pub(crate) retain: bool,
}

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// In order, each image once, whatever its spelling.
    pub(crate) images: Vec<Named>,
    /// What may be images, in arguments, environment variables and ConfigMaps of manifests.
    pub(crate) mentioned: Vec<Named>,
    /// What is filled in before anything is pulled: the text, and where it stands if in a manifest.
    pub(crate) placeholders: Vec<Named>,
    /// What should name an image in a manifest and doesn't: `FILE:LINE: …`.
    pub(crate) problems: Vec<String>,
    seen: HashSet<String>,
}

/// Reads arguments, lists and manifests.
///
/// # Errors
/// Something can't be read, stdin is meant twice, or no image is named anywhere.
pub(crate) fn gather(images: &[String], manifests: &[PathBuf]) -> anyhow::Result<Wanted> {
    let is_stdin = |path: &PathBuf| path == Path::new(STDIN);
    let from_stdin = images.iter().filter(|image| *image == STDIN).count()
        + manifests.iter().filter(|path| is_stdin(path)).count();
    if from_stdin > 1 {
        bail!("standard input can be read once only; give `-` once");
    }
    let mut wanted = Wanted::default();
    for image in images {
        if image == STDIN {
            wanted.list(&stdin()?)?;
        } else {
            wanted.add(image, None);
        }
    }
    if images.is_empty() && manifests.is_empty() {
        if io::stdin().is_terminal() {
            bail!("name an image, give a manifest with `-f`, or pipe a list in");
        }
        wanted.list(&stdin()?)?;
    }
    for path in manifests {
        if is_stdin(path) {
            wanted.manifest("stdin", &stdin()?)?;
            continue;
        }
        for file in files(path)? {
            let text = read(&file)?;
            wanted.manifest(&file.display().to_string(), &text)?;
        }
    }
    wanted.forget_mentions_of_images();
    if wanted.is_empty() {
        if manifests.is_empty() {
            bail!("standard input names no image");
        }
        bail!(
            "no image is named in what `-f` gives; it takes manifests here, and the config is named by `--file`"
        );
    }
    Ok(wanted)
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.mentioned.is_empty()
            && self.placeholders.is_empty()
            && self.problems.is_empty()
    }

    /// Makes images of what is only mentioned.
    pub(crate) fn take_mentioned(&mut self) {
        self.images.append(&mut self.mentioned);
    }

    /// A name that is mentioned before another manifest has it as an image.
    fn forget_mentions_of_images(&mut self) {
        let Self {
            mentioned, seen, ..
        } = self;
        mentioned.retain(|named| seen.insert(key(&named.image)));
    }

    fn add(&mut self, image: &str, place: Option<String>) {
        if self.seen.insert(key(image)) {
            let image = image.to_owned();
            let list = match is_placeholder(&image) {
                true => &mut self.placeholders,
                false => &mut self.images,
            };
            list.push(Named {
                image,
                place,
                retain: false,
            });
        }
    }

    /// An image that was added is to be kept, whoever else names it.
    fn retain(&mut self, image: &str) {
        let wanted = key(image);
        let mut known = self.images.iter_mut();
        if let Some(known) = known.find(|known| key(&known.image) == wanted) {
            known.retain = true;
        }
    }

    /// A list: an image a line, `#` begins a comment.
    fn list(&mut self, text: &str) -> anyhow::Result<()> {
        for line in text.lines() {
            // Lists of several files, one after another, may have a mark at the beginning of each.
            let line = line.trim_start_matches('\u{feff}');
            let image = line.split('#').next().unwrap_or_default().trim();
            if image.starts_with("apiVersion:") || image.starts_with("kind:") || image == "{" {
                bail!("standard input is a manifest, not a list of images; read it with `-f -`");
            }
            if !image.is_empty() {
                self.add(image, None);
            }
        }
        Ok(())
    }

    fn manifest(&mut self, file: &str, text: &str) -> anyhow::Result<()> {
        let found = manifest::images(text);
        if found.images.is_empty() && is_config(text) {
            bail!(
                "{file} is a config of image-cri-shim; `-f` takes manifests here, and the config is named by `--file`"
            );
        }
        if let Some(broken) = &found.broken {
            bail!("{}", located(file, broken));
        }
        let at = |place: &manifest::Place| Some(format!("{file}:{}: {place}", place.position.line));
        for image in found.images {
            self.add(&image.image, at(&image.place));
            if image.retain {
                self.retain(&image.image);
            }
        }
        for placeholder in found.placeholders {
            self.add(&placeholder.written, at(&placeholder.place));
        }
        self.mentioned
            .extend(found.mentioned.into_iter().map(|image| Named {
                place: at(&image.place),
                image: image.image,
                retain: false,
            }));
        let problems = found.problems.iter();
        self.problems
            .extend(problems.map(|problem| located(file, problem)));
        Ok(())
    }
}

/// Whether a text looks like our own config, which has an `image` that is none: the folder of the shim's state.
fn is_config(text: &str) -> bool {
    const FIELDS: [&str; 6] = [
        "registries:",
        "imageRedirMapping:",
        "offlinePriority:",
        "shim:",
        "cri:",
        "nodeCache:",
    ];
    let has = |field: &str| text.lines().any(|line| line.starts_with(field));
    FIELDS.into_iter().any(has) && !has("kind:") && !has("apiVersion:")
}

/// By which an image is known, whatever its spelling.
fn key(image: &str) -> String {
    let name = Reference::parse(image).map(|reference| reference.canonical());
    name.unwrap_or_else(|_| image.to_owned())
}

/// `FILE:LINE: PLACE MESSAGE`, on one line: names in manifests are anything at all.
fn located(file: &str, problem: &manifest::Problem) -> String {
    let place = problem.place.to_string();
    let space = if place.is_empty() { "" } else { " " };
    let line = problem.place.position.line;
    let said = format!("{file}:{line}: {place}{space}{}", problem.message);
    one_line(&said, 1000)
}

/// A file as it is; of a directory, what kubectl would take, sorted.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read the manifest {}", path.display());
    if !path.metadata().with_context(cannot)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().with_context(cannot)? {
        let file = entry.with_context(cannot)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("{} has no *.yaml, *.yml or *.json", path.display());
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read the manifest {name}"))?;
    text(file, &name)
}

fn stdin() -> anyhow::Result<String> {
    text(io::stdin().lock(), "standard input")
}

fn text(from: impl Read, name: &str) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {name}");
    let mut bytes = Vec::new();
    from.take(MAX_TEXT + 1)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    if bytes.len() as u64 > MAX_TEXT {
        bail!("{name} is larger than {MAX_TEXT} bytes; is it a manifest?");
    }
    decode(bytes).with_context(cannot)
}

/// That there are images which are mentioned only.
pub(crate) fn not_looked_at(count: usize) -> String {
    let images = match count {
        1 => "1 more image may be".to_owned(),
        count => format!("{count} more images may be"),
    };
    format!(
        "{images} named in arguments, environment variables or ConfigMaps; with --all they are looked at, too"
    )
}

/// That a placeholder is no image yet.
pub(crate) fn filled_in_later(named: &Named) -> String {
    let place = named.place.as_deref().unwrap_or_default();
    let space = if place.is_empty() { "" } else { " " };
    format!("{place}{space}{} is filled in later", named.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &Wanted) -> Vec<&str> {
        let images = wanted.images.iter();
        images.map(|named| named.image.as_str()).collect()
    }

    #[test]
    fn lists_have_comments_and_empty_lines() {
        let mut wanted = Wanted::default();
        wanted
            .list("# all\nnginx:1.27 # web\n\n  docker.io/library/nginx:1.27\r\n%bad\n")
            .unwrap();
        assert_eq!(names(&wanted), ["nginx:1.27", "%bad"]);
        wanted
            .list("\u{feff}a:1\n\u{feff}b:1\nauto\n$(params.image)\nauto\n")
            .unwrap();
        assert_eq!(names(&wanted), ["nginx:1.27", "%bad", "a:1", "b:1"]);
        let later: Vec<_> = wanted
            .placeholders
            .iter()
            .map(|named| named.image.as_str())
            .collect();
        assert_eq!(later, ["auto", "$(params.image)"]);
        let error = wanted.list("---\napiVersion: v1\n").unwrap_err();
        assert!(error.to_string().contains("-f -"), "{error}");
    }

    #[test]
    fn a_directory_stands_for_its_manifests() {
        let dir = tempfile::tempdir().unwrap();
        for (name, image) in [
            ("b.yml", "b:1"),
            ("a.yaml", "a:1"),
            ("c.json", "a:1"),
            ("d.txt", "d:1"),
        ] {
            std::fs::write(dir.path().join(name), format!("{{\"image\": \"{image}\"}}")).unwrap();
        }
        let wanted = gather(&["z:1".to_owned()], &[dir.path().to_owned()]).unwrap();
        assert_eq!(names(&wanted), ["z:1", "a:1", "b:1"]);
        let place = wanted.images[1].place.as_deref().unwrap();
        assert!(place.ends_with("a.yaml:1: image"), "{place}");
    }

    #[test]
    fn what_is_mentioned_in_one_manifest_and_named_in_another_is_named() {
        let mut wanted = Wanted::default();
        wanted
            .manifest(
                "a",
                "args: ['--x=q.io/a/b:1', '--y=q.io/a/c:1']\nenv: [{name: Z, value: 'q.io/a/c:1'}]",
            )
            .unwrap();
        wanted.manifest("b", "image: q.io/a/b:1").unwrap();
        wanted.forget_mentions_of_images();
        assert_eq!(names(&wanted), ["q.io/a/b:1"]);
        wanted.take_mentioned();
        assert_eq!(names(&wanted), ["q.io/a/b:1", "q.io/a/c:1"]);
        assert_eq!(wanted.images[1].place.as_deref(), Some("a:1: args[1]"));
    }

    #[test]
    fn what_kuik_keeps_is_kept_whoever_names_it_first() {
        let mut wanted = Wanted::default();
        wanted.manifest("a", "image: nginx:1").unwrap();
        let kept = "{kind: CachedImage, apiVersion: x, spec: {sourceImage: 'docker.io/library/nginx:1', retain: true}}";
        wanted.manifest("b", kept).unwrap();
        wanted
            .manifest(
                "c",
                &kept.replace("true", "false").replace("nginx", "redis"),
            )
            .unwrap();
        let kept: Vec<bool> = wanted.images.iter().map(|named| named.retain).collect();
        assert_eq!(kept, [true, false]);
    }

    #[test]
    fn manifests_in_utf_16() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        let units = "\u{feff}image: a:1\r\n".encode_utf16();
        std::fs::write(&file, units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
        assert_eq!(names(&gather(&[], &[file]).unwrap()), ["a:1"]);
    }

    #[test]
    fn what_names_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, "registries: [{address: a.io}]\n").unwrap();
        let error = gather(&[], &[file]).unwrap_err().to_string();
        assert!(error.contains("the config is named by `--file`"), "{error}");
        let config =
            "shim: /run/x.sock\nimage: /var/lib/image-cri-shim\nregistries: [{address: a.io}]\n";
        std::fs::write(dir.path().join("config.yaml"), config).unwrap();
        let error = gather(&[], &[dir.path().join("config.yaml")]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the config is named by `--file`"), "{error}");
        // A chart's values may have such a field, too.
        std::fs::write(
            dir.path().join("values.yaml"),
            "registries: []\nimage: a:1\n",
        )
        .unwrap();
        let wanted = gather(&[], &[dir.path().join("values.yaml")]).unwrap();
        assert_eq!(names(&wanted), ["a:1"]);
        assert!(gather(&[], &[dir.path().join("none")]).is_err());
        assert!(gather(&["-".to_owned()], &["-".into()]).is_err());
    }
}
