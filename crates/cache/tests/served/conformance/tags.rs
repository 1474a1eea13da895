//! Listing tags: from a registry that pages, from one that does not, and from the store when none answers.

use serde_json::{Value, json};
use testkit::fake_registry::Listing;
use testkit::images::Image;

use crate::world::{NAME, REPOSITORY, World, manifest_path};

const TAGS: [&str; 5] = ["1.0", "1.1", "Latest", "a", "b"];

/// Where a list comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Registry,
    RegistryWithoutPages,
    Store,
}

const ALL: [From; 3] = [From::Registry, From::RegistryWithoutPages, From::Store];

async fn world(from: From) -> World {
    let mut world = World::start().await;
    for tag in TAGS {
        world.registry.add(&Image::new(tag), REPOSITORY, tag);
    }
    match from {
        From::Registry => {}
        From::RegistryWithoutPages => world.registry.list_by(Listing {
            pages: false,
            ..Listing::default()
        }),
        From::Store => {
            for tag in TAGS {
                assert_eq!(world.get(&manifest_path(tag)).await.status, 200);
            }
            world.registry.stop().await;
        }
    }
    world
}

fn path(query: &str) -> String {
    format!("/v2/{NAME}/tags/list{query}")
}

fn tags(list: &Value) -> Vec<&str> {
    let tags = list["tags"].as_array().unwrap();
    tags.iter().map(|tag| tag.as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_of_tags_must_be_200_and_have_the_name_that_was_asked_for() {
    for from in ALL {
        let answer = world(from).await.get(&path("")).await;
        assert_eq!(answer.status, 200, "{from:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let list = answer.json();
        assert_eq!(list, json!({"name": NAME, "tags": TAGS}), "{from:?}");
    }
    let by_ns = "/v2/team/app/tags/list?ns=images.test";
    let list = world(From::Registry).await.get(by_ns).await.json();
    assert_eq!(list["name"], REPOSITORY);
}

#[tokio::test]
async fn tags_must_be_in_lexical_order() {
    for from in ALL {
        let world = world(from).await;
        for query in ["", "?n=3", "?last=1.0"] {
            let list = world.get(&path(query)).await.json();
            assert!(tags(&list).is_sorted(), "{from:?} {query}: {list}");
        }
    }
}

#[tokio::test]
async fn n_must_limit_the_tags_and_a_link_say_that_there_are_more() {
    for from in ALL {
        let world = world(from).await;
        let answer = world.get(&path("?n=2")).await;
        assert_eq!(tags(&answer.json()), ["1.0", "1.1"], "{from:?}");
        assert!(answer.next().is_some(), "{from:?}");
        for query in ["?n=5", "?n=50"] {
            let answer = world.get(&path(query)).await;
            assert_eq!(tags(&answer.json()), TAGS, "{from:?} {query}");
            assert_eq!(answer.next(), None, "{from:?} {query}");
        }
    }
}

#[tokio::test]
async fn the_links_must_lead_through_all_tags_once() {
    for from in ALL {
        let world = world(from).await;
        for form in [
            path("?n=2"),
            "/v2/team/app/tags/list?n=2&ns=images.test".into(),
        ] {
            let (mut found, mut next) = (Vec::new(), Some(form));
            while let Some(path) = next {
                let answer = world.get(&path).await;
                assert_eq!(answer.status, 200, "{from:?} {path}");
                let list = answer.json();
                found.extend(tags(&list).into_iter().map(str::to_owned));
                assert!(found.len() <= TAGS.len(), "{from:?}: {found:?}");
                next = answer.next();
            }
            assert_eq!(found, TAGS, "{from:?}");
        }
    }
}

#[tokio::test]
async fn n_of_zero_must_be_an_empty_list_without_a_link() {
    for from in ALL {
        let answer = world(from).await.get(&path("?n=0")).await;
        assert_eq!(answer.status, 200, "{from:?}");
        assert!(tags(&answer.json()).is_empty(), "{from:?}");
        assert_eq!(answer.next(), None, "{from:?}");
    }
}

#[tokio::test]
async fn last_must_not_be_in_the_list_and_n_is_optional() {
    for from in ALL {
        let world = world(from).await;
        for (query, expected) in [
            ("?last=1.1", &TAGS[2..]),
            ("?n=1&last=1.1", &TAGS[2..3]),
            ("?n=10&last=a", &TAGS[4..]),
            ("?last=b", &[]),
            // A tag that is not there: what would come after it.
            ("?last=1.05", &TAGS[1..]),
        ] {
            let list = world.get(&path(query)).await.json();
            assert_eq!(tags(&list), expected, "{from:?} {query}");
        }
    }
}

#[tokio::test]
async fn the_list_of_a_repository_without_tags_may_be_empty() {
    let world = World::start().await;
    let image = Image::new("no tag");
    world.registry.add(&image, REPOSITORY, "gone");
    world.registry.remove(REPOSITORY, "gone");
    let answer = world.get(&path("")).await;
    assert_eq!(answer.status, 200);
    assert!(tags(&answer.json()).is_empty());
}

#[tokio::test]
async fn the_list_of_a_repository_that_is_not_found_is_404() {
    let world = world(From::Registry).await;
    let answer = world.get("/v2/images.test/team/nothing/tags/list").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "NAME_UNKNOWN")
    );
}

#[tokio::test]
async fn a_list_from_the_store_says_that_it_is_stale() {
    let answer = world(From::Store).await.get(&path("?n=1")).await;
    assert!(answer.header("warning").unwrap().starts_with("299 - \""));
    let fresh = world(From::Registry).await.get(&path("")).await;
    assert_eq!(fresh.header("warning"), None);
}
