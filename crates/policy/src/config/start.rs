//! What to start with where the local file can't be used.
//!
//! A node whose images come from mirrors must come back after a reboot, whatever was done to the file. A site that
//! must not touch the outside must not be opened by that: where `fallbackToOrigin` or `bypass` stands in the text and is
//! not clearly true, nothing is forwarded without rules. So that this also holds for a text that nobody can parse, the
//! words are looked for in it, in the same way as the packages' script that leads kubelet past the shim.

use super::diagnostic::Diagnostic;
use super::fields::switch;
use super::raw::RawConfig;
use super::reader::Environment;
use super::render::render;
use super::settings::Settings;
use crate::yaml;

/// The fields that close a site.
const FALLBACK: &str = "fallbackToOrigin";
const BYPASS: &str = "bypass";
const QUOTES: [char; 2] = ['"', '\''];

/// The text of a file that can't be used, as far as it can be read. No `Debug`: it may hold credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BrokenText<'a> {
    /// It is no config.
    Unusable(&'a str),
    /// It is one, but seems to have lost what the last good config had.
    CutOff(&'a str),
}

/// What to start with in place of a file that can't be used. No `Debug`: it holds a config's text.
#[derive(PartialEq, Eq)]
pub enum StartConfig {
    /// The last good config.
    LastGood,
    /// This text: the file's sockets and directories, as far as they can be read, and no rules.
    ForwardAll(String),
    /// Nothing.
    Refuse(StartRefusal),
}

/// Why nothing may take the place of a file that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    /// The config says so.
    #[error("`strict: true` forbids to start with the last good config, or without rules")]
    Strict,
    /// The site must not touch the outside, and nothing that is left says where else to pull from.
    #[error(
        "`fallbackToOrigin` or `bypass` is in it and not clearly true, and there is no last good config that says false to the same; a site that must not touch the outside is not opened by a mistake"
    )]
    ClosedSite,
}

/// Decides. `last_good` is the text of the config that was in force last, where there is one.
pub fn start_without_file(
    broken: BrokenText<'_>,
    last_good: Option<&str>,
    environment: &Environment<'_>,
) -> StartConfig {
    let (BrokenText::Unusable(file) | BrokenText::CutOff(file)) = broken;
    // What a file does not say counts only where all of it can be read.
    let is_whole = matches!(broken, BrokenText::Unusable(_))
        && !file.trim().is_empty()
        && yaml::parse(file).is_ok();
    if is_strict(file) || (!is_whole && last_good.is_some_and(is_strict)) {
        return StartConfig::Refuse(StartRefusal::Strict);
    }
    let usable = last_good.and_then(|text| {
        let (settings, findings) = Settings::read(text, environment);
        (!findings.iter().any(Diagnostic::is_error)).then_some(settings)
    });
    let is_closed = |text: &str| may_be_false(text, FALLBACK) || may_be_false(text, BYPASS);
    let opens = match &usable {
        Some(settings) => {
            (may_be_false(file, FALLBACK) && settings.rules.fallback_to_origin)
                || (may_be_false(file, BYPASS) && settings.bypass)
        }
        None => is_closed(file) || last_good.is_some_and(is_closed),
    };
    match usable {
        _ if opens => StartConfig::Refuse(StartRefusal::ClosedSite),
        Some(_) => StartConfig::LastGood,
        None => StartConfig::ForwardAll(without_rules(file, environment)),
    }
}

/// Sockets, directories and the like of a file that can't be used, as far as they can be read, as the text of a
/// config without rules.
pub fn without_rules(file: &str, environment: &Environment<'_>) -> String {
    let mut written = RawConfig::read(file).0;
    if yaml::parse(file).is_err() {
        written = RawConfig::read(&lines_of_the_node(file)).0;
    }
    let raw = RawConfig {
        shim: written.shim,
        cri: written.cri,
        image: written.image,
        metrics_address: written.metrics_address,
        force: written.force,
        debug: written.debug,
        bypass: written.bypass,
        ..RawConfig::default()
    };
    let (_, findings) = Settings::from_raw(&raw, environment);
    if findings.iter().any(Diagnostic::is_error) {
        return String::new();
    }
    render(&raw)
}

/// The lines that say something about the node itself, each of which is good when it stands alone.
fn lines_of_the_node(text: &str) -> String {
    let mut found = String::new();
    for name in [
        "shim",
        "cri",
        "image",
        "metricsAddress",
        "force",
        "debug",
        "bypass",
    ] {
        let is_good = |line: &&str| {
            let after = line.strip_prefix(name);
            after.is_some_and(|after| after.trim_start().starts_with(':'))
                && RawConfig::read(line).1.is_empty()
        };
        if let Some(line) = lines(text).find(is_good) {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

/// Whether `strict: true` can be read in it.
fn is_strict(text: &str) -> bool {
    if yaml::parse(text).is_ok() {
        return RawConfig::read(text)
            .0
            .strict
            .is_some_and(|strict| strict.value);
    }
    words_after(text, "strict").contains(&Word::True)
}

/// Whether `name` is in it, with a value that is neither clearly true nor nothing.
fn may_be_false(text: &str, name: &str) -> bool {
    let is_open = |word: &Word| matches!(word, Word::True | Word::Nothing);
    !words_after(text, name).iter().all(is_open)
}

/// What stands after the name of a field that is a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    True,
    False,
    /// Which means the field's default.
    Nothing,
    Unclear,
}

/// What stands after each `name` outside of comments.
fn words_after(text: &str, name: &str) -> Vec<Word> {
    let (text, name) = (searchable(text), name.to_ascii_lowercase());
    let found = text.match_indices(&name).filter(|(at, _)| {
        let before = text.get(..*at).and_then(|text| text.chars().next_back());
        // What UTF-16 begins with is no letter either.
        before.is_none_or(|c| c.is_whitespace() || "{,\"'\u{feff}\u{fffd}".contains(c))
    });
    let after = found.filter_map(|(at, _)| text.get(at + name.len()..));
    after.filter_map(word_after).collect()
}

/// The value in `": true, …"`. `None` where the name is not a field's.
fn word_after(text: &str) -> Option<Word> {
    let text = text.trim_start_matches(QUOTES).trim_start();
    let Some(text) = text.strip_prefix(':') else {
        // It was cut off behind the name.
        return text.is_empty().then_some(Word::Unclear);
    };
    let text = value(text).trim_start_matches(QUOTES);
    let is_end = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '#' | '"' | '\'');
    let (word, rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    let rest = rest
        .trim_start_matches(QUOTES)
        .trim_start_matches([' ', '\t']);
    let ends = rest.is_empty() || rest.starts_with(['\n', ',', '}', ']', '#']);
    Some(match (word, switch(word)) {
        _ if !ends => Word::Unclear,
        ("" | "~" | "null", _) => Word::Nothing,
        (_, Some(true)) => Word::True,
        (_, Some(false)) => Word::False,
        (_, None) => Word::Unclear,
    })
}

/// Where the value begins: on the next line where that is indented.
fn value(after_colon: &str) -> &str {
    let line = after_colon.trim_start_matches([' ', '\t']);
    if !line.is_empty() && !line.starts_with(['\n', '#']) {
        return line;
    }
    let next = line.find('\n').and_then(|end| line.get(end..));
    let next = next.unwrap_or_default().trim_start_matches('\n');
    match next.starts_with([' ', '\t']) {
        true => next.trim_start(),
        false => "",
    }
}

/// Without comments that are lines of their own, in one case, and with one kind of line ends. A text in UTF-16 has zeros
/// between its letters.
fn searchable(text: &str) -> String {
    let text = text.replace('\0', "").to_ascii_lowercase();
    let is_comment = |line: &&str| line.trim_start_matches([' ', '\t']).starts_with('#');
    let kept: Vec<_> = lines(&text).filter(|line| !is_comment(line)).collect();
    kept.join("\n")
}

/// YAML knows both ends of a line.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: &str = "address: http://a.io\n";
    const CLOSED: &str = "address: http://a.io\nfallbackToOrigin: false\n";
    const STRICT: &str = "address: http://a.io\nstrict: true\n";

    const NO_BYPASS: &str = "address: http://a.io\nbypass: false\n";

    fn decided(file: &str, last_good: Option<&str>) -> StartConfig {
        start_without_file(BrokenText::Unusable(file), last_good, &|_| None)
    }

    fn shown(file: &str, last_good: Option<&str>) -> String {
        match decided(file, last_good) {
            StartConfig::LastGood => "last good".to_owned(),
            StartConfig::ForwardAll(_) => "forward".to_owned(),
            StartConfig::Refuse(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn the_table() {
        for (file, last_good, expected) in [
            ("timeout: [", None, "forward"),
            ("timeout: soon", None, "forward"),
            ("", None, "forward"),
            ("timeout: [", Some(OPEN), "last good"),
            ("timeout: [", Some(CLOSED), "last good"),
            ("timeout: [", Some("timeout: soon"), "forward"),
            ("fallbackToOrigin: true\ntimeout: [", None, "forward"),
            ("# fallbackToOrigin: false\ntimeout: [", None, "forward"),
            ("fallbackToOrigin: false\ntimeout: [", None, "ClosedSite"),
            ("fallbackToOrigin: false\ntimeout: soon", None, "ClosedSite"),
            (
                "fallbackToOrigin: false\ntimeout: [",
                Some(OPEN),
                "ClosedSite",
            ),
            (
                "fallbackToOrigin: false\ntimeout: [",
                Some(CLOSED),
                "last good",
            ),
            // What is left of the last good config is closed.
            (
                "timeout: [",
                Some("fallbackToOrigin: false\ntimeout: soon"),
                "ClosedSite",
            ),
            ("bypass: false\ntimeout: [", None, "ClosedSite"),
            ("bypass: false\ntimeout: [", Some(OPEN), "ClosedSite"),
            ("bypass: false\ntimeout: [", Some(NO_BYPASS), "last good"),
            ("bypass: false\ntimeout: [", Some(CLOSED), "last good"),
            (
                "fallbackToOrigin: false\ntimeout: [",
                Some(NO_BYPASS),
                "ClosedSite",
            ),
            (
                "timeout: [",
                Some("bypass: false\ntimeout: ["),
                "ClosedSite",
            ),
            ("bypass:\ntimeout: [", Some(OPEN), "last good"),
            ("strict: true\ntimeout: [", None, "Strict"),
            ("strict: true\ntimeout: [", Some(CLOSED), "Strict"),
            ("strict: true\ntimeout: soon", Some(OPEN), "Strict"),
            ("strict: false\ntimeout: soon", Some(STRICT), "last good"),
            ("timeout: soon", Some(STRICT), "last good"),
            // The file says nothing any more, so the last good config does.
            ("timeout: [", Some(STRICT), "Strict"),
            ("", Some(STRICT), "Strict"),
        ] {
            assert_eq!(shown(file, last_good), expected, "{file:?} {last_good:?}");
        }
        // What was cut off may be what said so.
        let cut_off = BrokenText::CutOff("# ours");
        let decided = start_without_file(cut_off, Some(STRICT), &|_| None);
        assert!(decided == StartConfig::Refuse(StartRefusal::Strict));
    }

    #[test]
    fn words_are_found_in_a_text_that_nobody_can_parse() {
        for text in [
            "fallbackToOrigin: false",
            "\"fallbackToOrigin\": False",
            "'fallbacktoorigin' : 'no'",
            "{fallbackToOrigin: off, ",
            "a: 1,fallbackToOrigin:\n  false",
            "fallbackToOrigin: # ours\n\n  false",
            "fallbackToOrigin:false",
            "\u{feff}fallbackToOrigin: n",
            "fallbackToOrigin: fasle",
            "fallbackToOrigin: trueish",
            "fallbackToOrigin",
            "fallbackToOrigin: !!bool false",
            "# ours\rfallbackToOrigin: false",
            "x: 1 # fallbackToOrigin: false",
            "f\0a\0l\0l\0b\0a\0c\0k\0T\0o\0O\0r\0i\0g\0i\0n\0:\0f\0a\0l\0s\0e",
            "fallbackToOrigin: true\nfallbackToOrigin: false",
        ] {
            assert!(may_be_false(text, FALLBACK), "{text:?}");
        }
        for text in [
            "",
            "fallbackToOrigin: true",
            "{\"fallbackToOrigin\": \"yes\", a: [",
            "  # fallbackToOrigin: false",
            // Nothing is the default.
            "fallbackToOrigin:\nbypass: false",
            "fallbackToOrigin: \"\"\na: [",
            "fallbackToOrigin: null # ours",
            "fallbackToOrigin: ~",
            // A part of another word.
            "myfallbackToOrigin: false",
        ] {
            assert!(!may_be_false(text, FALLBACK), "{text:?}");
        }
        assert!(!may_be_false("address: bypass.corp\nb: [", BYPASS));
        assert!(!may_be_false("address: no-bypass", BYPASS));
        for text in [
            "strict: true\na: [",
            "{'strict': \"Yes\", a: [",
            "a: [\n\tSTRICT : on",
        ] {
            assert!(is_strict(text), "{text:?}");
        }
        for text in [
            "a: [\nstrict: false",
            "a: [\nrestrict: true",
            "a: [\n# strict: true",
        ] {
            assert!(!is_strict(text), "{text:?}");
        }
    }

    #[test]
    fn what_is_forwarded_is_forwarded_by_the_node_s_own_sockets() {
        let node = "shim: /run/s.sock\ncri: /run/k3s/containerd/containerd.sock\nimage: '/data/shim' # ours\n";
        let rules = "address: http://a.io\nregistries: [{address: b.io}]\n";
        for broken in ["timeout: soon\n", "timeout: [\n", "\"\n"] {
            let text = format!("{node}{rules}{broken}");
            let StartConfig::ForwardAll(text) = decided(&text, None) else {
                panic!("{broken:?}");
            };
            let (settings, findings) = Settings::read(&text, &|_| None);
            assert!(!findings.iter().any(Diagnostic::is_error), "{text}");
            assert!(settings.rules.is_empty(), "{text}");
            assert_eq!(settings.shim_socket.to_str(), Some("/run/s.sock"));
            let runtime = settings.runtime_socket.unwrap();
            assert_eq!(
                runtime.to_str(),
                Some("/run/k3s/containerd/containerd.sock")
            );
            assert_eq!(settings.state_dir.to_str(), Some("/data/shim"));
        }
        // Not even that can be used.
        assert_eq!(without_rules("shim: /a\ncri: /a\n", &|_| None), "");
    }

    /// Ways to write it that YAML or people have.
    fn closed() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "fallbackToOrigin",
            "\"fallbackToOrigin\"",
            "'fallbackToOrigin'",
            "FallbackToOrigin",
        ]);
        let value = prop::sample::select(vec!["false", "False", "no", "off", "'false'", "\"no\""]);
        (key, " {0,2}", " {0,2}", value)
            .prop_map(|(key, a, b, value)| format!("{key}{a}:{b}{value}"))
    }

    proptest! {
        #[test]
        fn a_closed_site_is_never_opened(
            before in "([a-z#:{\\[\"' ]{0,12}\n){0,3}",
            closed in closed(),
            after in "(\n[a-z#:}\\]\"' ]{0,12}){0,3}",
            last_good in prop::option::of(prop::sample::select(vec![OPEN, CLOSED, STRICT, "a: ["])),
        ) {
            let file = format!("{before}{closed}{after}");
            match decided(&file, last_good) {
                StartConfig::ForwardAll(_) => prop_assert!(false, "{file:?}"),
                StartConfig::LastGood => prop_assert_eq!(last_good, Some(CLOSED)),
                StartConfig::Refuse(_) => {}
            }
        }

        #[test]
        fn any_text_is_decided(file in ".{0,60}", last_good in prop::option::of(".{0,60}")) {
            decided(&file, last_good.as_deref());
        }
    }
}
