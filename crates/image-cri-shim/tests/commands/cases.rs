//! Situations in which an image may be resolved and pulled.

use http::StatusCode;
use testkit::fake_registry::{Behaviour, FakeRegistry};
use testkit::images::Image;

use crate::world::PASSWORD;

/// What one of the registries is.
pub(crate) enum Is {
    /// It answers, and has nothing.
    Empty,
    /// It has the image as this repository and tag.
    Has(&'static str, &'static str),
    /// It has another image by that name.
    HasOther(&'static str, &'static str),
    /// It has the image, for who knows the password.
    Private(&'static str, &'static str),
    /// It misbehaves.
    Behaves(Behaviour),
    /// It accepts and never answers.
    BlackHole,
    /// Nobody listens any more.
    Gone,
}

/// One situation. `{0}` is the first registry's URL, `{0h}` its host as in an image's name, `{digest}`
/// the image's digest.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) registries: Vec<Is>,
    pub(crate) config: &'static str,
    pub(crate) image: &'static str,
    /// Another image that is pulled before, so that something is known already.
    pub(crate) before: Option<&'static str>,
    /// What must come first; empty where nothing is pulled.
    pub(crate) first: &'static str,
    /// Whether it can be had; none for what no rule applies to.
    pub(crate) available: Option<bool>,
}

/// The registries of a case, and how its texts are filled in.
pub(crate) struct Scene {
    pub(crate) registries: Vec<FakeRegistry>,
    image: Image,
}

impl Scene {
    pub(crate) async fn new(case: &Case) -> Self {
        let image = Image::new("app");
        let mut registries = Vec::new();
        for is in &case.registries {
            let mut registry = FakeRegistry::start().unwrap();
            match is {
                Is::Empty => {}
                Is::Has(repository, tag) => registry.add(&image, repository, tag),
                Is::HasOther(repository, tag) => {
                    registry.add(&Image::new("other"), repository, tag);
                }
                Is::Private(repository, tag) => {
                    registry.add(&image, repository, tag);
                    registry.require_basic("hugo", PASSWORD);
                }
                Is::Behaves(behaviour) => registry.behave(behaviour.clone()),
                Is::BlackHole => registry.set_black_hole(true),
                Is::Gone => registry.stop().await,
            }
            registries.push(registry);
        }
        Self { registries, image }
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text.replace("{digest}", &self.image.manifest_digest);
        for (at, registry) in self.registries.iter().enumerate() {
            text = text.replace(&format!("{{{at}}}"), &registry.url());
            text = text.replace(&format!("{{{at}h}}"), &registry.host());
        }
        text
    }
}

const TWO: &str = "registries: [{address: '{0}', priority: 900}, {address: '{1}'}]";
const APP: (&str, &str) = ("team/app", "1");

fn has() -> Is {
    Is::Has(APP.0, APP.1)
}

/// Two registries, of which the first is in trouble and the second has the image.
fn second_has_it(name: &'static str, first: Is) -> Case {
    case(
        name,
        vec![first, has(), has()],
        TWO,
        "{2h}/team/app:1",
        "{1h}/team/app:1",
    )
}

fn case(
    name: &'static str,
    registries: Vec<Is>,
    config: &'static str,
    image: &'static str,
    first: &'static str,
) -> Case {
    Case {
        name,
        registries,
        config,
        image,
        before: None,
        first,
        available: Some(true),
    }
}

fn not_available(case: Case) -> Case {
    Case {
        available: Some(false),
        ..case
    }
}

/// All of them: what issues 1, 2 and 4 are about.
pub(crate) fn all() -> Vec<Case> {
    let mut all = registries();
    all.extend(troubles());
    all.extend(redirects());
    all.extend(names());
    all
}

fn registries() -> Vec<Case> {
    vec![
        case(
            "the highest priority wins",
            vec![has(), has(), has()],
            TWO,
            "{2h}/team/app:1",
            "{0h}/team/app:1",
        ),
        second_has_it("only the second has it", Is::Empty),
        case(
            "equal priorities",
            vec![has(), has(), has()],
            "registries: [{address: '{0}'}, {address: '{1}'}]",
            "{2h}/team/app:1",
            "",
        ),
        case(
            "the offline registry comes first",
            vec![has(), has(), has()],
            "address: '{1}'\nregistries: [{address: '{0}', priority: 1000}]",
            "{2h}/team/app:1",
            "{1h}/team/app:1",
        ),
        case(
            "a registry with a path",
            vec![Is::Has("proxy/cache/team/app", "1"), Is::Empty, has()],
            "registries: [{address: '{0}/proxy/cache'}]",
            "{2h}/team/app:1",
            "{0h}/proxy/cache/team/app:1",
        ),
        case(
            "a registry for other hosts",
            vec![has(), Is::Empty, has()],
            "registries: [{address: '{0}', mirrorOf: [quay.io]}]",
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        ),
        case(
            "a public registry serves its own images only",
            vec![Is::Empty, Is::Empty, has()],
            "registries: [{address: ghcr.io, priority: 900}]",
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        ),
        case(
            "auth of the config",
            vec![Is::Private(APP.0, APP.1), Is::Empty, has()],
            "registries: [{address: '{0}', auth: 'hugo:hunter2'}]",
            "{2h}/team/app:1",
            "{0h}/team/app:1",
        ),
        not_available(case(
            "wrong auth, and nobody else",
            vec![Is::Private(APP.0, APP.1), Is::Empty, Is::Empty],
            "registries: [{address: '{0}', auth: 'hugo:wrong'}]",
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        )),
        not_available(case(
            "nobody, and the origin is not allowed",
            vec![Is::Empty, Is::Empty, has()],
            "fallbackToOrigin: false\nregistries: [{address: '{0}'}]",
            "{2h}/team/app:1",
            "",
        )),
        not_available(case(
            "silence, and the origin is not allowed",
            vec![Is::Gone, Is::Empty, has()],
            "fallbackToOrigin: false\nregistries: [{address: '{0}'}]",
            "{2h}/team/app:1",
            "{0h}/team/app:1",
        )),
        case(
            "nothing is configured",
            vec![Is::Empty, Is::Empty, has()],
            "",
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        ),
    ]
}

fn troubles() -> Vec<Case> {
    let status = |status| Is::Behaves(Behaviour::Status(status));
    let limited = Behaviour::RateLimited {
        retry_after: Some("30".to_owned()),
    };
    vec![
        case(
            "404 everywhere",
            vec![Is::Empty, Is::Empty, has()],
            TWO,
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        ),
        not_available(case(
            "404 everywhere, also at the origin",
            vec![Is::Empty, Is::Empty, Is::Empty],
            TWO,
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        )),
        not_available(case(
            "an origin that is gone",
            vec![Is::Empty, Is::Gone, Is::Gone],
            TWO,
            "{2h}/team/app:1",
            "{2h}/team/app:1",
        )),
        second_has_it("401", Is::Private(APP.0, APP.1)),
        second_has_it("403", status(StatusCode::FORBIDDEN)),
        second_has_it("429", Is::Behaves(limited)),
        second_has_it("500", status(StatusCode::INTERNAL_SERVER_ERROR)),
        second_has_it("503", status(StatusCode::SERVICE_UNAVAILABLE)),
        second_has_it("400", status(StatusCode::BAD_REQUEST)),
        second_has_it(
            "a page in the place of a manifest",
            Is::Behaves(Behaviour::CaptivePortal),
        ),
        second_has_it(
            "HEAD refused, and nothing there",
            Is::Behaves(Behaviour::HeadRefused),
        ),
        second_has_it("refused", Is::Gone),
        second_has_it("never answers", Is::BlackHole),
        Case {
            before: Some("{2h}/other/app:1"),
            ..second_has_it("circuit open already", Is::Gone)
        },
        Case {
            before: Some("{2h}/team/app:1"),
            ..second_has_it("remembered", Is::Empty)
        },
    ]
}

fn redirects() -> Vec<Case> {
    const PLAIN: &str = "imageRedirMapping: [{src: ghcr.io/, to: '{0}/mirror/'}]";
    const BESIDE: &str =
        "registries: [{address: '{1}'}]\nimageRedirMapping: [{src: ghcr.io, to: '{0}/mirror'}]";
    let target = || Is::Has("mirror/team/app", "1");
    vec![
        case(
            "a redirect",
            vec![target()],
            PLAIN,
            "ghcr.io/team/app:1",
            "{0h}/mirror/team/app:1",
        ),
        case(
            "a canonical redirect",
            vec![Is::Has("mirror/library/nats", "2")],
            "imageRedirMapping: [{src: docker.io/, to: '{0}/mirror/', canonical: true}]",
            "nats:2",
            "{0h}/mirror/library/nats:2",
        ),
        case(
            "a redirect that is not canonical",
            vec![Is::Has("mirror/nats", "2")],
            "imageRedirMapping: [{src: docker.io/, to: '{0}/mirror/'}]",
            "nats:2",
            "{0h}/mirror/nats:2",
        ),
        case(
            "a redirect with a priority",
            vec![target(), has()],
            "registries: [{address: '{1}'}]\nimageRedirMapping: [{src: ghcr.io, to: '{0}/mirror', priority: 900}]",
            "ghcr.io/team/app:1",
            "{0h}/mirror/team/app:1",
        ),
        not_available(case(
            "a redirect's target says 404",
            vec![Is::Empty],
            PLAIN,
            "ghcr.io/team/app:1",
            "ghcr.io/team/app:1",
        )),
        not_available(case(
            "a redirect's target is gone",
            vec![Is::Gone],
            PLAIN,
            "ghcr.io/team/app:1",
            "{0h}/mirror/team/app:1",
        )),
        case(
            "a registry before a redirect",
            vec![target(), has()],
            BESIDE,
            "ghcr.io/team/app:1",
            "{1h}/team/app:1",
        ),
        case(
            "a redirect after a registry",
            vec![target(), Is::Empty],
            BESIDE,
            "ghcr.io/team/app:1",
            "{0h}/mirror/team/app:1",
        ),
        case(
            "a registry that is silent before a redirect",
            vec![target(), Is::Gone],
            BESIDE,
            "ghcr.io/team/app:1",
            "{0h}/mirror/team/app:1",
        ),
    ]
}

fn names() -> Vec<Case> {
    let untouched = |case: Case| Case {
        available: None,
        ..case
    };
    vec![
        case(
            "a digest",
            vec![Is::HasOther(APP.0, APP.1), has(), has()],
            TWO,
            "{2h}/team/app@{digest}",
            "{1h}/team/app@{digest}",
        ),
        case(
            "a tag and a digest that a mirror lacks",
            vec![Is::HasOther(APP.0, APP.1), Is::Empty, has()],
            TWO,
            "{2h}/team/app:1@{digest}",
            "{2h}/team/app:1@{digest}",
        ),
        case(
            "no tag",
            vec![Is::Has("team/app", "latest"), Is::Empty, has()],
            TWO,
            "{2h}/team/app",
            "{0h}/team/app:latest",
        ),
        case(
            "Docker Hub by its other name",
            vec![Is::Has("library/app", "1"), Is::Empty],
            TWO,
            "index.docker.io/library/app:1",
            "{0h}/library/app:1",
        ),
        case(
            "a short name",
            vec![Is::Has("library/app", "1"), Is::Empty],
            TWO,
            "app:1",
            "{0h}/library/app:1",
        ),
        case(
            "an image that is at a registry of the config already",
            vec![has(), Is::Empty],
            TWO,
            "{0h}/team/app:1",
            "{0h}/team/app:1",
        ),
        untouched(case(
            "an image ID",
            vec![has(), has()],
            TWO,
            "{digest}",
            "{digest}",
        )),
        untouched(case(
            "no valid name",
            vec![has(), has()],
            TWO,
            "Team/App:1:2",
            "Team/App:1:2",
        )),
    ]
}
