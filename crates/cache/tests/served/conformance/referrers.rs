//! Listing referrers: from a registry with that API, from the tag of one without it, and from the store when
//! none answers.

use serde_json::Value;
use testkit::fake_registry::Listing;
use testkit::images::{Format, Image};

use crate::world::{NAME, REPOSITORY, World, absent, manifest_path};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SBOM: &str = "application/vnd.example.sbom.v1+json";

/// Where a list comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Registry,
    RegistryWithoutFilters,
    Tag,
    Store,
}

const ALL: [From; 4] = [
    From::Registry,
    From::RegistryWithoutFilters,
    From::Tag,
    From::Store,
];

struct Case {
    world: World,
    subject: Image,
    /// With an artifact type, with one of its config only, and an index with none.
    referrers: [Image; 3],
}

async fn case(from: From) -> Case {
    let mut world = World::start().await;
    let subject = Image::new("subject");
    let referrers = [
        Image::about(&subject, "sbom", Some(SBOM)),
        Image::about(&subject, "config", None),
        Image::index_about(&subject, "index"),
    ];
    world.registry.add(&subject, REPOSITORY, "1");
    for (number, referrer) in referrers.iter().enumerate() {
        let tag = format!("r{number}");
        world.registry.add(referrer, REPOSITORY, &tag);
    }
    let listing = Listing {
        referrers: from != From::Tag,
        filters: from == From::Registry,
        ..Listing::default()
    };
    world.registry.list_by(listing);
    match from {
        From::Tag => {
            let descriptors: Vec<Value> = referrers.iter().map(described).collect();
            let index = Image::referrers_index(&descriptors);
            let tag = subject.manifest_digest.replace(':', "-");
            world.registry.add(&index, REPOSITORY, &tag);
        }
        From::Store => {
            for image in referrers.iter().chain([&subject]) {
                let path = manifest_path(&image.manifest_digest);
                assert_eq!(world.get(&path).await.status, 200);
            }
            world.registry.stop().await;
        }
        From::Registry | From::RegistryWithoutFilters => {}
    }
    Case {
        world,
        subject,
        referrers,
    }
}

/// What the specification wants to stand in the list for a referrer.
fn described(image: &Image) -> Value {
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let mut descriptor = image.descriptor();
    descriptor["annotations"] = manifest["annotations"].clone();
    let own = manifest["artifactType"].as_str();
    if let Some(kind) = own.or(manifest["config"]["mediaType"].as_str()) {
        descriptor["artifactType"] = kind.into();
    }
    descriptor
}

fn path(digest: &str) -> String {
    format!("/v2/{NAME}/referrers/{digest}")
}

fn listed(index: &Value) -> Vec<Value> {
    let mut all = index["manifests"].as_array().unwrap().clone();
    all.sort_by_key(|descriptor| descriptor["digest"].to_string());
    all
}

fn expected<'a>(images: impl IntoIterator<Item = &'a Image>) -> Vec<Value> {
    let mut all: Vec<Value> = images.into_iter().map(described).collect();
    all.sort_by_key(|descriptor| descriptor["digest"].to_string());
    all
}

#[tokio::test]
async fn referrers_must_be_200_with_an_index_of_descriptors() {
    for from in ALL {
        let case = case(from).await;
        let answer = case.world.get(&path(&case.subject.manifest_digest)).await;
        assert_eq!(answer.status, 200, "{from:?}");
        let index = answer.json();
        assert_eq!(index["schemaVersion"], 2, "{from:?}");
        assert_eq!(index["mediaType"], INDEX, "{from:?}");
        assert_eq!(listed(&index).len(), 3, "{from:?}: {index}");
    }
}

#[tokio::test]
async fn the_content_type_must_be_that_of_an_index() {
    for from in ALL {
        let case = case(from).await;
        let answer = case.world.get(&path(&case.subject.manifest_digest)).await;
        assert_eq!(answer.header("content-type"), Some(INDEX), "{from:?}");
    }
}

#[tokio::test]
async fn descriptors_must_have_artifact_types_and_annotations() {
    // Of the manifest, else of its config; an index that has none has none.
    for from in ALL {
        let case = case(from).await;
        let answer = case.world.get(&path(&case.subject.manifest_digest)).await;
        let index = answer.json();
        assert_eq!(listed(&index), expected(&case.referrers), "{from:?}");
    }
}

#[tokio::test]
async fn referrers_must_never_be_404() {
    for listing in [
        Listing::default(),
        Listing {
            referrers: true,
            ..Listing::default()
        },
    ] {
        let (world, image) = World::with_image().await;
        world.registry.list_by(listing);
        for digest in [image.manifest_digest, absent()] {
            let answer = world.get(&path(&digest)).await;
            assert_eq!(answer.status, 200, "{listing:?}");
            assert_eq!(answer.header("content-type"), Some(INDEX));
        }
    }
}

#[tokio::test]
async fn no_matching_referrers_must_be_an_empty_list() {
    for from in ALL {
        let case = case(from).await;
        let query = "?artifactType=application%2Fvnd.example.nothing";
        let asked = format!("{}{query}", path(&case.subject.manifest_digest));
        let answer = case.world.get(&asked).await;
        assert_eq!(answer.status, 200, "{from:?}");
        assert_eq!(
            answer.json()["manifests"],
            serde_json::json!([]),
            "{from:?}"
        );
        let filters = answer.header("oci-filters-applied");
        assert_eq!(filters, Some("artifactType"), "{from:?}");
    }
}

#[tokio::test]
async fn an_invalid_digest_must_be_400() {
    let (world, _) = World::with_image().await;
    for wrong in ["sha256:12", "1", "md5:00"] {
        let answer = world.get(&path(wrong)).await;
        let found = (answer.status, answer.code());
        assert_eq!(found, (400, "DIGEST_INVALID".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn artifact_type_should_filter_and_the_answer_must_say_so() {
    for from in ALL {
        let case = case(from).await;
        let of_config = "application/vnd.testkit.config.v1+json";
        for (kind, number) in [(SBOM, 0), (of_config, 1)] {
            // Encoded, and as many clients write it.
            for plus in ["%2B", "+"] {
                let query = format!("?artifactType={}", kind.replace('+', plus));
                let asked = format!("{}{query}", path(&case.subject.manifest_digest));
                let answer = case.world.get(&asked).await;
                let filters = answer.header("oci-filters-applied");
                assert_eq!(filters, Some("artifactType"), "{from:?} {query}");
                let index = answer.json();
                let wanted = expected([&case.referrers[number]]);
                assert_eq!(listed(&index), wanted, "{from:?} {query}");
            }
        }
        let answer = case.world.get(&path(&case.subject.manifest_digest)).await;
        assert_eq!(answer.header("oci-filters-applied"), None, "{from:?}");
    }
}

#[tokio::test]
async fn a_link_must_be_there_where_the_list_is_longer() {
    let case = case(From::Registry).await;
    case.world.registry.list_by(Listing {
        referrers: true,
        referrers_each: 2,
        ..Listing::default()
    });
    let (mut found, mut next) = (Vec::new(), Some(path(&case.subject.manifest_digest)));
    let mut pages = 0;
    while let Some(path) = next {
        assert!(
            path.starts_with(&format!("/v2/{NAME}/referrers/")),
            "{path}"
        );
        let answer = case.world.get(&path).await;
        assert_eq!(answer.status, 200);
        found.extend(listed(&answer.json()));
        pages += 1;
        next = answer.next();
    }
    found.sort_by_key(|descriptor| descriptor["digest"].to_string());
    assert_eq!((pages, found), (2, expected(&case.referrers)));
}

#[tokio::test]
async fn the_tag_must_be_truncated_as_the_schema_says() {
    let world = World::start().await;
    let subject = Image::new("subject");
    let referrer = Image::about(&subject, "sbom", Some(SBOM));
    let index = Image::referrers_index(&[described(&referrer)]);
    let hex = "0123456789abcdef".repeat(8);
    let tag = format!("sha512-{}", &hex[..64]);
    world.registry.add(&index, REPOSITORY, &tag);
    let answer = world.get(&path(&format!("sha512:{hex}"))).await;
    assert_eq!(listed(&answer.json()), expected([&referrer]));
}

#[tokio::test]
async fn a_tag_that_is_no_index_should_mean_that_there_are_none() {
    let (world, image) = World::with_image().await;
    let tag = image.manifest_digest.replace(':', "-");
    for other in [
        Image::new("no index"),
        Image::index("index", Format::Docker),
    ] {
        world.registry.add(&other, REPOSITORY, &tag);
        let answer = world.get(&path(&image.manifest_digest)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["manifests"], serde_json::json!([]));
    }
}
