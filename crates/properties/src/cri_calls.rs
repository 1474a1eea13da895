//! The bytes that kubelet and the runtime send.

use std::sync::LazyLock;

use cri::alias::Aliases;
use cri::wire::{self, AuthEdit};
use policy::Credentials;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use testkit::cri_api::{AuthConfig, ListImagesResponse, PullImageRequest};

const IMAGE: &str = "sealos.hub:5000/library/nginx:1.27";

/// A decoder sees the new name and credentials, and all else as it was.
pub(crate) fn wire_edit(data: &[u8]) {
    let credentials = Credentials::new("user", "password");
    let auth = AuthEdit::Replace {
        credentials: &credentials,
        server_address: "http://sealos.hub:5000",
    };
    let Ok(edited) = wire::replace_image_and_auth(data, IMAGE, auth) else {
        return;
    };
    // What the typed codec refuses, the runtime refuses too; and more than that.
    if annotates_by_another_wire_type(data) {
        return;
    }
    let Ok(before) = PullImageRequest::decode(data) else {
        return;
    };
    let after = PullImageRequest::decode(&edited[..]).expect("what was readable stays so");
    let mut expected = before;
    let spec = expected.image.get_or_insert_default();
    spec.image = IMAGE.to_owned();
    let after_spec = after.image.clone().unwrap_or_default();
    assert_eq!(after_spec.image, IMAGE);
    assert_eq!(after_spec.annotations, spec.annotations);
    assert_eq!(after_spec.runtime_handler, spec.runtime_handler);
    let wanted = AuthConfig {
        username: "user".to_owned(),
        password: "password".to_owned(),
        server_address: "http://sealos.hub:5000".to_owned(),
        ..AuthConfig::default()
    };
    assert_eq!(after.auth, Some(wanted));
    assert_eq!(after.sandbox_config, expected.sandbox_config);
    let auth = AuthEdit::Replace {
        credentials: &credentials,
        server_address: "http://sealos.hub:5000",
    };
    let again = wire::replace_image_and_auth(&edited, IMAGE, auth).expect("edited once");
    assert_eq!(again, edited);
}

/// Whether an ImageSpec has annotations (field 2) that are not length-delimited. prost reads an entry of a map whatever
/// its key says of its wire type; every other decoder refuses it, or skips it.
fn annotates_by_another_wire_type(request: &[u8]) -> bool {
    let specs = fields(request).into_iter().filter(|(tag, ..)| *tag == 1);
    let mut in_specs = specs.flat_map(|(.., spec)| fields(spec));
    in_specs.any(|(tag, wire_type, _)| tag == 2 && wire_type != WireType::LengthDelimited)
}

/// The fields of a message, as far as it is one: number, wire type, and what is inside one that is length-delimited.
fn fields(mut message: &[u8]) -> Vec<(u32, WireType, &[u8])> {
    let mut found = Vec::new();
    while let Ok((tag, wire_type)) = decode_key(&mut message) {
        let mut after = message;
        if skip_field(wire_type, tag, &mut after, DecodeContext::default()).is_err() {
            break;
        }
        let mut inside = &message[..message.len() - after.len()];
        if wire_type == WireType::LengthDelimited {
            let _ = decode_varint(&mut inside);
        }
        found.push((tag, wire_type, inside));
        message = after;
    }
    found
}

static ALIASES: LazyLock<Aliases> = LazyLock::new(|| {
    let aliases = Aliases::default();
    aliases.set("docker.io/library/nginx:1.27", IMAGE);
    aliases.set("quay.io/app:1", "mirror:5000/app:1");
    let digest = format!("@sha256:{}", "a".repeat(64));
    aliases.set(
        &format!("ghcr.io/x/y{digest}"),
        &format!("mirror:5000/x/y{digest}"),
    );
    aliases
});

/// Names are only added, and only once.
pub(crate) fn list_images(data: &[u8]) {
    let Some(edited) = cri::fuzzing::with_original_names(&ALIASES, data) else {
        return;
    };
    let again = cri::fuzzing::with_original_names(&ALIASES, &edited).expect("edited once");
    assert_eq!(again, edited);
    let Ok(before) = ListImagesResponse::decode(data) else {
        return;
    };
    let after = ListImagesResponse::decode(&edited[..]).expect("what was readable stays so");
    assert_eq!(after.images.len(), before.images.len());
    for (mut after, before) in after.images.into_iter().zip(before.images) {
        assert!(after.repo_tags.starts_with(&before.repo_tags));
        assert!(after.repo_digests.starts_with(&before.repo_digests));
        after.repo_tags.truncate(before.repo_tags.len());
        after.repo_digests.truncate(before.repo_digests.len());
        assert_eq!(after, before);
    }
}

/// In whatever pieces a client's bytes come, the same goes on; and a block that is written anew says to an independent
/// decoder what it said before, but for the authority.
pub(crate) fn authority(data: &[u8]) {
    let whole = cri::fuzzing::served_bytes(data, usize::MAX);
    for piece in [1, 7, 1024] {
        assert_eq!(
            cri::fuzzing::served_bytes(data, piece),
            whole,
            "in pieces of {piece}"
        );
    }
    let Some(rewritten) = cri::fuzzing::rewritten_block(data) else {
        return;
    };
    let Ok(before) = loona_hpack::Decoder::new().decode(data) else {
        return;
    };
    let after = loona_hpack::Decoder::new()
        .decode(&rewritten)
        .expect("a rewritten block is read");
    let expected: Vec<_> = before
        .into_iter()
        .map(|(name, value)| match name == b":authority" {
            true => (name, b"localhost".to_vec()),
            false => (name, value),
        })
        .collect();
    assert_eq!(after, expected);
}
