//! The splice against a typed codec: whatever order, repetition and splitting a message came in,
//! a decoder must see the new name and credentials, and every other byte must still be there.

use policy::Credentials;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use testkit::cri_api::{AuthConfig, ImageSpec, ImageStatusRequest, PullImageRequest};

use super::fields::{Fields, put_field};
use super::{AuthEdit, image_name, replace_image_and_auth, request_auth, status_image_id};

/// An encoded field that none of the structs knows.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = 100u32..3000;
    prop_oneof![
        (number.clone(), any::<u64>()).prop_map(|(n, v)| {
            let mut out = Vec::new();
            prost::encoding::uint64::encode(n, &v, &mut out);
            out
        }),
        (number.clone(), any::<u64>()).prop_map(|(n, v)| {
            let mut out = Vec::new();
            prost::encoding::fixed64::encode(n, &v, &mut out);
            out
        }),
        (number.clone(), any::<u32>()).prop_map(|(n, v)| {
            let mut out = Vec::new();
            prost::encoding::fixed32::encode(n, &v, &mut out);
            out
        }),
        (number, vec(any::<u8>(), 0..200)).prop_map(|(n, v)| {
            let mut out = Vec::new();
            put_field(n, &v, &mut out);
            out
        }),
    ]
}

fn spec() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::option::of("[a-z./:]{0,40}");
    let user = proptest::option::of("[a-z]{0,10}");
    let annotations = proptest::collection::hash_map("[a-z]{1,4}", "[a-z]{0,9}", 0..3);
    let known = (name, user, annotations).prop_map(|(name, user, annotations)| {
        ImageSpec {
            image: name.unwrap_or_default(),
            user_specified_image: user.unwrap_or_default(),
            annotations,
            ..ImageSpec::default()
        }
        .encode_to_vec()
    });
    vec(prop_oneof![2 => known, 1 => unknown()], 0..4)
        .prop_shuffle()
        .prop_map(|parts| parts.concat())
}

fn auth() -> impl Strategy<Value = Vec<u8>> {
    let known =
        ("[a-z]{0,5}", "[a-z:]{0,5}", "[a-z]{0,5}").prop_map(|(username, password, token)| {
            AuthConfig {
                username,
                password,
                identity_token: token,
                ..AuthConfig::default()
            }
            .encode_to_vec()
        });
    vec(prop_oneof![3 => known, 1 => unknown()], 0..3).prop_map(|parts| parts.concat())
}

/// The fields of a PullImageRequest, each with its number, in any order and number.
fn pull() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let field = |number: u32| {
        move |value: Vec<u8>| {
            let mut out = Vec::new();
            put_field(number, &value, &mut out);
            (number, out)
        }
    };
    vec(
        prop_oneof![
            3 => spec().prop_map(field(1)),
            2 => auth().prop_map(field(2)),
            1 => vec(any::<u8>(), 0..50).prop_map(field(3)),
            2 => unknown().prop_map(|bytes| (0, bytes)),
        ],
        0..7,
    )
    .prop_shuffle()
}

fn bytes(fields: &[(u32, Vec<u8>)]) -> Vec<u8> {
    fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// All encoded fields of `message` but those numbered `without`, in order.
fn others(message: &[u8], without: &[u32]) -> Vec<Vec<u8>> {
    Fields::of(message)
        .map(Result::unwrap)
        .filter(|field| !without.contains(&field.number))
        .map(|field| message[field.span.clone()].to_vec())
        .collect()
}

/// The parts of the ImageSpec joined (which is what merging means), without the name fields.
fn spec_without_names(message: &[u8]) -> Vec<Vec<u8>> {
    let joined: Vec<u8> = Fields::of(message)
        .map(Result::unwrap)
        .filter(|field| field.number == 1)
        .flat_map(|field| field.value.to_vec())
        .collect();
    others(&joined, &[1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reading_agrees_with_the_typed_codec(fields in pull()) {
        let message = bytes(&fields);
        let typed = PullImageRequest::decode(&message[..]).unwrap();
        prop_assert_eq!(image_name(&message).unwrap(), typed.image.unwrap_or_default().image);
        let auth = request_auth(&message).unwrap();
        prop_assert_eq!(auth.is_some(), typed.auth.is_some());
        let (auth, typed) = (auth.unwrap_or_default(), typed.auth.unwrap_or_default());
        prop_assert_eq!(auth.username, typed.username);
        prop_assert_eq!(auth.password, typed.password);
        prop_assert_eq!(auth.identity_token, typed.identity_token);
    }

    #[test]
    fn an_edit_changes_what_it_should_and_nothing_else(
        fields in pull(),
        name in "[a-z0-9./:@]{1,80}",
        edit in 0..3,
    ) {
        let message = bytes(&fields);
        let credentials = Credentials::new("robot$x", "p:w");
        let auth = match edit {
            0 => AuthEdit::Keep,
            1 => AuthEdit::Remove,
            _ => AuthEdit::Replace {
                credentials: &credentials,
                server_address: "https://r.io:5000",
            },
        };
        let edited = replace_image_and_auth(&message, &name, auth).unwrap();

        let mut expected = PullImageRequest::decode(&message[..]).unwrap();
        expected.image.get_or_insert_default().image.clone_from(&name);
        match edit {
            0 => {}
            1 => expected.auth = None,
            _ => expected.auth = Some(AuthConfig {
                username: "robot$x".into(),
                password: "p:w".into(),
                server_address: "https://r.io:5000".into(),
                ..AuthConfig::default()
            }),
        }
        prop_assert_eq!(PullImageRequest::decode(&edited[..]).unwrap(), expected);
        let untouched: &[u32] = if edit == 0 { &[1] } else { &[1, 2] };
        prop_assert_eq!(others(&edited, untouched), others(&message, untouched));
        prop_assert_eq!(spec_without_names(&edited), spec_without_names(&message));
    }

    #[test]
    fn the_same_name_again_changes_no_byte(name in "[a-z/:]{1,60}", verbose: bool) {
        let request = ImageStatusRequest {
            image: Some(ImageSpec { image: name.clone(), ..ImageSpec::default() }),
            verbose,
        }
        .encode_to_vec();
        prop_assert_eq!(&replace_image_and_auth(&request, &name, AuthEdit::Keep).unwrap()[..], &request[..]);
    }

    #[test]
    fn garbage_never_panics_and_never_turns_readable(message in vec(any::<u8>(), 0..60)) {
        let _ = status_image_id(&message);
        let _ = request_auth(&message);
        let readable = image_name(&message).is_ok();
        for auth in [AuthEdit::Keep, AuthEdit::Remove] {
            match replace_image_and_auth(&message, "new", auth) {
                Ok(edited) => prop_assert_eq!(image_name(&edited).unwrap(), "new"),
                Err(_) => prop_assert!(!readable || request_auth(&message).is_err()),
            }
        }
    }

    #[test]
    fn a_message_cut_short_is_refused_or_read_as_the_codec_reads_it(fields in pull(), cut in 0usize..200) {
        let mut message = bytes(&fields);
        message.truncate(cut);
        match (image_name(&message), PullImageRequest::decode(&message[..])) {
            (Ok(name), Ok(typed)) => prop_assert_eq!(name, typed.image.unwrap_or_default().image),
            (Ok(_), Err(_)) => {} // The cut is inside a part that is none of our business.
            (Err(_), Ok(_)) => prop_assert!(false, "refused what the codec reads"),
            (Err(_), Err(_)) => {}
        }
    }
}
