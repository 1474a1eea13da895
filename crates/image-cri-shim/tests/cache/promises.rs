//! What other caches get wrong, each with the test that this one does not.

use std::path::Path;

/// What goes wrong elsewhere; the file of a test, below `crates`; the test.
const TESTS: &[(&str, &str, &str)] = &[
    (
        "the whole image comes before the first byte; two transfers on every first miss; N clients are N transfers",
        "image-cri-shim/tests/cache/one_layer.rs",
        "sixty_four_clients_are_one_transfer_and_little_memory",
    ),
    (
        "a transfer that breaks is not resumed",
        "image-cri-shim/tests/cache/cut.rs",
        "at_every_tenth_by_every_way",
    ),
    (
        "Range is ignored on a miss",
        "cache/tests/served/conformance/ranges.rs",
        "a_range_of_a_blob_that_is_not_stored_yet_should_be_answered_with_206",
    ),
    (
        "an upstream's 404 deletes the copy",
        "cache/src/api/tests/tags.rs",
        "a_miss_is_remembered_and_a_404_deletes_nothing",
    ),
    (
        "a shared blob expires with one image",
        "cache/src/index/tests.rs",
        "the_least_recently_used_image_goes_first_and_shared_layers_stay",
    ),
    (
        "an empty 200 is stored",
        "cache/src/pull_through/tests.rs",
        "an_empty_answer_is_no_blob",
    ),
    (
        "collecting garbage needs time in which nothing is stored, and stays there when it dies",
        "image-cri-shim/tests/cache/evicted.rs",
        "whatever_is_left_is_whole_and_room_is_made_again",
    ),
    (
        "collecting garbage needs time in which nothing is stored",
        "cache/src/api/tests/disk.rs",
        "many_pull_while_images_are_evicted",
    ),
    (
        "stale only on 429",
        "cache/src/api/tests/tags.rs",
        "a_tag_is_served_stale_whatever_keeps_its_place_from_answering",
    ),
    (
        "a token realm over plain HTTP gets the credentials",
        "cache/tests/served/credentials.rs",
        "they_never_go_to_a_plain_token_service_on_another_host",
    ),
    (
        "a token realm over plain HTTP gets the credentials of a TLS registry",
        "cache/tests/served/credentials.rs",
        "they_never_go_from_a_tls_registry_to_a_plain_realm",
    ),
    (
        "one expired tag is a thousand HEADs",
        "cache/src/api/tests/pulls.rs",
        "one_head_for_a_thousand_clients_of_one_tag",
    ),
    (
        "a tag that resolves, but whose digest is 404, is asked for for ever",
        "cache/src/api/tests/tags.rs",
        "a_tag_whose_manifest_is_not_there_or_another_is_no_answer",
    ),
    (
        "attestation manifests fail",
        "cache/src/api/tests/pulls.rs",
        "an_index_is_pulled_with_its_attestations",
    ),
    (
        "temporary files fill the disk",
        "cache/src/storage/tests/mod.rs",
        "downloads_that_nobody_goes_on_with_fill_no_disk",
    ),
    (
        "temporary files fill the disk after a crash",
        "cache/src/store/disk/tests.rs",
        "a_directory_has_one_owner_and_is_swept_at_the_start",
    ),
    (
        "HEAD of a blob is 404 or 405 where GET works",
        "cache/tests/served/conformance/blobs.rs",
        "head_must_work_where_the_registry_knows_only_get",
    ),
    (
        "a cached private image is given to anybody",
        "cache/src/api/tests/rights.rs",
        "a_private_image_is_for_who_proves_his_right",
    ),
    (
        "an archive that names a layer without holding it gives it to everybody",
        "cache/src/layout/tests.rs",
        "a_digest_alone_brings_nothing",
    ),
    (
        "an import that is killed leaves half an image",
        "image-cri-shim/tests/cache/layouts.rs",
        "a_cache_that_is_killed_in_the_middle_has_nothing_half",
    ),
    (
        "a config that forgets who may ask opens the cache to everybody",
        "cache/src/role/door.rs",
        "a_change_opens_no_door_that_the_cache_would_not_start_with",
    ),
    (
        "caches that mirror each other ask each other without end",
        "image-cri-shim/tests/cache/circles.rs",
        "what_nobody_has_is_404_and_what_is_there_is_served_without_a_storm",
    ),
    (
        "power loss leaves names without content",
        "cache/src/storage/tests/power.rs",
        "at_every_step_the_store_is_clean_and_has_all_that_was_acknowledged",
    ),
];

#[test]
fn each_has_its_test() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (wrong, file, test) in TESTS {
        let text = std::fs::read_to_string(crates.join(file))
            .unwrap_or_else(|error| panic!("{wrong}: {file}: {error}"));
        let before = text.split(&format!("fn {test}(")).next().unwrap();
        assert!(before.len() < text.len(), "{wrong}: no {test} in {file}");
        // The attribute that makes it a test stands right above it.
        let last = before.rsplit("#[").next().unwrap();
        let is_test = last.starts_with("test]") || last.starts_with("tokio::test");
        assert!(
            is_test && last.lines().count() <= 2,
            "{wrong}: {test} in {file} is no test"
        );
    }
}
