//! What the runtime's own files say to us. Only CRI-O's matter: they give short names a meaning, and they
//! judge images by the name that they are pulled by.

mod files;

use std::path::Path;

use policy::config::Settings;
use policy::crio::{self, CrioConfig};
use policy::rules::Rules;

use self::files::Texts;

/// The config of the runtime behind a socket, as far as it matters to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    crio: Option<CrioConfig>,
    problems: Vec<String>,
}

impl RuntimeConfig {
    /// Reads the files of the runtime that listens on `socket`. They stand below `root`, which is `/` but in
    /// tests. A file that can't be read is passed over; [`RuntimeConfig::warnings`] names it.
    pub fn read(root: &Path, socket: &Path) -> Self {
        if !crio::is_crio_socket(socket) {
            return Self::default();
        }
        let mut texts = Texts::new(root);
        let crio_conf = texts.with_drop_ins("etc/crio/crio.conf", "");
        let registries_conf = texts.with_drop_ins("etc/containers/registries.conf", ".conf");
        let short_name_aliases = texts.one("var/cache/containers/short-name-aliases.conf");
        let policy_json = texts.one("etc/containers/policy.json");
        let certs_d = ["etc/containers/certs.d", "etc/docker/certs.d"];
        let certs_d: Vec<String> = certs_d.iter().flat_map(|dir| texts.folders(dir)).collect();
        let certs_d: Vec<&str> = certs_d.iter().map(String::as_str).collect();
        let (crio, unread) = CrioConfig::read(&crio::Files {
            crio_conf: &files::borrowed(&crio_conf),
            registries_conf: &files::borrowed(&registries_conf),
            short_name_aliases: short_name_aliases.as_ref().map(files::borrowed_one),
            policy_json: policy_json.as_ref().map(files::borrowed_one),
            certs_d: &certs_d,
        });
        let mut problems = texts.into_problems();
        problems.extend(unread);
        Self {
            crio: Some(crio),
            problems,
        }
    }

    /// The config as it is in front of this runtime: short names mean what they mean to the runtime, and
    /// what it pulls without checking certificates is asked without checking them.
    #[must_use]
    pub fn applied_to(&self, mut settings: Settings) -> Settings {
        let Some(crio) = &self.crio else {
            return settings;
        };
        let conf = crio.registries();
        let Rules {
            registries,
            redirects,
            short_names,
            ..
        } = &mut settings.rules;
        let registries = registries.iter_mut().map(|r| (&r.endpoint, &mut r.tls));
        let redirects = redirects.iter_mut().map(|r| (&r.to, &mut r.tls));
        for (endpoint, tls) in registries.chain(redirects) {
            // What the config says itself about the certificate goes first.
            if tls.ca_file.is_none() && conf.is_insecure(&endpoint.domain(), endpoint.path()) {
                tls.insecure_skip_verify = true;
                tls.or_plain = true;
            }
        }
        short_names.clone_from(conf.short_names());
        settings
    }

    /// What to tell people: files that can't be read, and what the runtime's files need so that images
    /// come from the places of `rules`.
    pub fn warnings(&self, rules: &Rules) -> Vec<String> {
        let hints = self.crio.iter().flat_map(|crio| crio.hints(rules));
        self.problems.iter().cloned().chain(hints).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CRIO: &str = "/var/run/crio/crio.sock";

    fn settings(text: &str) -> Settings {
        Settings::read(text, &|_| None).0
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn only_crio_is_read() {
        let root = root(&[(
            "etc/containers/registries.conf",
            "unqualified-search-registries = ['a.io']",
        )]);
        let read = RuntimeConfig::read(root.path(), Path::new("/run/containerd/containerd.sock"));
        assert_eq!(read, RuntimeConfig::default());
        let config = settings("address: http://sealos.hub:5000");
        assert_eq!(read.applied_to(config.clone()), config);
        assert_eq!(read.warnings(&config.rules), [""; 0]);
    }

    #[test]
    fn drop_ins_are_read_after_the_main_file_in_the_order_of_their_names() {
        let root = root(&[
            (
                "etc/containers/registries.conf",
                "unqualified-search-registries = ['a.io', 'b.io']",
            ),
            (
                "etc/containers/registries.conf.d/20-x.conf",
                "unqualified-search-registries = ['c.io']",
            ),
            (
                "etc/containers/registries.conf.d/10-x.conf",
                "unqualified-search-registries = ['d.io']\n[aliases]\napp = 'q.io/team/app'",
            ),
            (
                "etc/containers/registries.conf.d/30-x.txt",
                "unqualified-search-registries = ['e.io']",
            ),
        ]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        let rules = read
            .applied_to(settings("address: http://sealos.hub:5000"))
            .rules;
        assert_eq!(rules.short_names.search, ["c.io"]);
        assert_eq!(rules.short_names.aliases["app"], "q.io/team/app");
    }

    /// containers/image asks that file before every registries.conf.
    #[test]
    fn recorded_aliases_go_before_all_others() {
        let root = root(&[
            (
                "etc/containers/registries.conf",
                "unqualified-search-registries = ['a.io']\n[aliases]\napp = 'q.io/app'\ngone = 'q.io/gone'",
            ),
            (
                "etc/containers/registries.conf.d/99-x.conf",
                "[aliases]\napp = 'r.io/app'\ngone = 'r.io/gone'",
            ),
            (
                "var/cache/containers/short-name-aliases.conf",
                "unqualified-search-registries = ['b.io']\n[aliases]\napp = 's.io/app'\ngone = ''",
            ),
        ]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        assert_eq!(read.problems, [""; 0]);
        let config = settings("address: http://sealos.hub:5000");
        let names = read.applied_to(config).rules.short_names;
        assert_eq!(names.search, ["a.io"]);
        let aliases: Vec<_> = names.aliases.into_iter().collect();
        assert_eq!(aliases, [("app".to_owned(), "s.io/app".to_owned())]);
    }

    #[test]
    fn insecure_registries_are_asked_as_crio_pulls_from_them() {
        let root = root(&[(
            "etc/containers/registries.conf",
            "[[registry]]\nlocation = 'a.corp'\ninsecure = true\n[[registry]]\nlocation = 'b.corp'\ninsecure = true\n[[registry]]\nlocation = 'c.corp'\ninsecure = true\n",
        )]);
        let read = RuntimeConfig::read(root.path(), Path::new(CRIO));
        let config = settings(
            "registries: [{address: a.corp}, {address: b.corp, caFile: /ca.pem}, {address: d.corp}]\n\
             imageRedirMapping: [{src: docker.io, to: c.corp}]",
        );
        let rules = read.applied_to(config).rules;
        let registries = rules.registries.iter().map(|r| {
            (
                r.endpoint.host(),
                r.tls.insecure_skip_verify && r.tls.or_plain,
            )
        });
        let redirects = rules
            .redirects
            .iter()
            .map(|r| (r.to.host(), r.tls.insecure_skip_verify && r.tls.or_plain));
        let all: Vec<_> = registries.chain(redirects).collect();
        assert_eq!(
            all,
            [
                ("a.corp", true),
                ("b.corp", false),
                ("d.corp", false),
                ("c.corp", true)
            ]
        );
    }

    #[test]
    fn what_people_should_know() {
        let root = root(&[
            (
                "etc/crio/crio.conf",
                "[crio.image]\npause_image = 'sealos.hub:5000/pause:3'\n",
            ),
            (
                "etc/crio/crio.conf.d/10-pinned",
                "[crio.image]\npinned_images = ['quay.io/a/b:1']\n",
            ),
            (
                "etc/containers/policy.json",
                "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}",
            ),
            ("etc/containers/certs.d/b.corp/ca.crt", ""),
            ("etc/containers/registries.conf", "[[registry]\n"),
        ]);
        let config = settings(
            "address: http://sealos.hub:5000\nregistries: [{address: b.corp, caFile: /ca.pem, mirrorOf: [ghcr.io]}]",
        );
        let warnings = RuntimeConfig::read(root.path(), Path::new(CRIO)).warnings(&config.rules);
        let expected = [
            "registries.conf can't be read",
            "`location = \"sealos.hub:5000\"`",
            "list sealos.hub:5000/a/b:1 too",
        ];
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
        // No file at all is no problem.
        let empty = tempfile::tempdir().unwrap();
        let read = RuntimeConfig::read(empty.path(), Path::new(CRIO));
        assert_eq!(read.problems, [""; 0]);
    }
}
