//! A cache that serves before a registry, and a client of it.

use std::net::SocketAddr;
use std::ops::Deref;

use cache::role::Role;
use policy::config::{ListenAddress, Settings};
use registry::CertsDirs;
use serde_json::Value;
use tempfile::TempDir;
use testkit::fake_registry::FakeRegistry;
use testkit::images::Image;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The repository that tests use, as clients of the cache name it.
pub(crate) const NAME: &str = "images.test/team/app";
/// As its registry names it.
pub(crate) const REPOSITORY: &str = "team/app";

/// The codes that the specification knows. A 4XX has no other.
pub(crate) const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// A cache that serves.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    dir: TempDir,
}

/// A cache before one registry, which has nothing yet.
pub(crate) struct World {
    pub(crate) registry: FakeRegistry,
    cache: Served,
}

impl Deref for World {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.cache
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an error, whose body has the form that the specification wants.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let errors = self.json()["errors"].as_array().unwrap().clone();
        assert!(!errors.is_empty());
        let code = errors[0]["code"].as_str().unwrap().to_owned();
        assert!(errors[0]["message"].as_str().is_some_and(|m| !m.is_empty()));
        let is_word = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(code.chars().all(is_word), "{code}");
        code
    }

    /// The query of the next page, by its `Link`.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
        assert_eq!(rest, "; rel=\"next\"", "{link}");
        Some(target.to_owned())
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let registry = FakeRegistry::start().unwrap();
        let cache = Served::start(&format!("{{address: '{}'}}", registry.url())).await;
        Self { registry, cache }
    }

    /// A world with one image under the tag `1`.
    pub(crate) async fn with_image() -> (Self, Image) {
        let world = Self::start().await;
        let image = Image::sized("conformance", 4000);
        world.registry.add(&image, REPOSITORY, "1");
        (world, image)
    }

    /// Has the cache take in a blob and waits until it is a hit.
    pub(crate) async fn stored(&self, path: &str) {
        testkit::wait::until("the blob is stored", || async {
            assert_eq!(self.get(path).await.status, 200);
            let before = self.registry.recording().all().len();
            assert_eq!(self.get(path).await.status, 200);
            (self.registry.recording().all().len() == before).then_some(())
        })
        .await;
    }
}

impl Served {
    /// What is left of a download of a blob that was broken off.
    pub(crate) fn leave_partial(&self, digest: &str, content: &[u8]) {
        let partial = self.dir.path().join("partial");
        let path = partial.join(digest.replace(':', "-"));
        std::fs::write(&path, content).unwrap();
        let ranges = format!("[[0,{}]]", content.len());
        std::fs::write(path.with_extension("ranges"), ranges).unwrap();
    }

    /// A cache before these registries, entries of the config's list, and nothing else.
    pub(crate) async fn start(registries: &str) -> Self {
        Self::start_with(&format!(
            "fallbackToOrigin: false\nregistries: [{registries}]\n"
        ))
        .await
    }

    /// A cache with this config.
    pub(crate) async fn start_with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let section = format!(
            "nodeCache: {{dir: '{}', minFree: 1Mi}}\n",
            dir.path().display()
        );
        let (mut settings, _) = Settings::read(&format!("{config}{section}"), &|_| None);
        settings.node_cache.listen = vec![ListenAddress {
            address: "127.0.0.1:0".parse().unwrap(),
            required: true,
        }];
        let role = Role::start(&settings, "served", CertsDirs::none())
            .await
            .unwrap();
        let address = role.addresses()[0];
        // It ends with the test's runtime.
        tokio::spawn(role.serve(std::future::pending()));
        Self { address, dir }
    }

    /// One request on a connection of its own, read to its end.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        let end = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        let answer = Answer {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head,
            body: received[end + 4..].to_vec(),
        };
        if method == "HEAD" {
            assert!(answer.body.is_empty(), "HEAD {path} has a body");
        } else if let Some(length) = answer.header("content-length") {
            assert_eq!(length, answer.body.len().to_string(), "{method} {path}");
        }
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.ask("HEAD", path, &[]).await
    }
}

pub(crate) fn manifest_path(reference: &str) -> String {
    format!("/v2/{NAME}/manifests/{reference}")
}

pub(crate) fn blob_path(digest: &str) -> String {
    format!("/v2/{NAME}/blobs/{digest}")
}

/// The digest of something that nobody has.
pub(crate) fn absent() -> String {
    testkit::images::digest(b"nobody has this")
}
