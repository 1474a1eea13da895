//! Replacing the image name of a request, and with it the credentials.

use bytes::Bytes;

use super::IMAGE_NAME;
use super::auth::{AuthEdit, replace_auth};
use super::fields::{Field, Fields, WireError, WireType, put_field, text};

/// The request with another image name (field 1.1) and its credentials (field 2) as `auth` says;
/// everything else as it was.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty; forward it as it came.
pub fn replace_image_and_auth(
    request: &[u8],
    name: &str,
    auth: AuthEdit<'_>,
) -> Result<Bytes, WireError> {
    let named = replace_text(request, IMAGE_NAME, name)?;
    Ok(replace_auth(named, auth)?.into())
}

/// The message with another text at `path`, a field number for each level; everything else as it was.
/// Where a level is missing it is added at the end of its message.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty; forward it as it came.
pub fn replace_text(message: &[u8], path: &[u32], value: &str) -> Result<Vec<u8>, WireError> {
    let Some((number, rest)) = path.split_first() else {
        return Ok(value.as_bytes().to_vec());
    };
    let (start, end, inner) = match find(message, path)? {
        Some(Found { field, .. }) => (field.span.start, field.span.end, field.value),
        None => (message.len(), message.len(), &[][..]),
    };
    let mut out = Vec::with_capacity(message.len() + value.len() + 16);
    out.extend_from_slice(message.get(..start).unwrap_or_default());
    put_field(*number, &replace_text(inner, rest, value)?, &mut out);
    out.extend_from_slice(message.get(end..).unwrap_or_default());
    Ok(out)
}

/// A field on the way to a text.
struct Found<'a> {
    field: Field<'a>,
    /// The text is in it.
    has_text: bool,
}

/// Of the fields that occur several times, the one that counts for a decoder: the last one that has
/// the text in it, else the last one. Also checks everything that is going to be relied upon, so that an
/// edit never makes a message readable that was not.
fn find<'a>(message: &'a [u8], path: &[u32]) -> Result<Option<Found<'a>>, WireError> {
    let Some((number, rest)) = path.split_first() else {
        return Ok(None);
    };
    let mut last: Option<Found<'a>> = None;
    for field in Fields::of(message) {
        let field = field?;
        if field.number != *number {
            continue;
        }
        let value = field.expect(WireType::Len)?;
        let has_text = if rest.is_empty() {
            text(value)?;
            true
        } else {
            find(value, rest)?.is_some_and(|found| found.has_text)
        };
        if has_text || !last.as_ref().is_some_and(|last| last.has_text) {
            last = Some(Found { field, has_text });
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use policy::Credentials;
    use prost::Message;
    use testkit::cri_api::{ImageSpec, ImageStatusRequest};

    use super::*;
    use crate::wire::{AUTH, CONTAINER_IMAGE_NAME, image_name, request_auth, text_at};

    const IMAGE: u32 = 1;

    /// A submessage that is split in two, the first part with the name: the second part must stay.
    #[test]
    fn a_name_in_the_first_of_two_parts_is_replaced_there() {
        let request = [
            0x0a, 5, 0x0a, 3, b'a', b':', b'1', // image part with a name
            0x0a, 4, 0x92, 0x01, 1, b'x', // image part with user_specified_image
        ];
        let edited = replace_image_and_auth(&request, "mirror/a:1", AuthEdit::Keep).unwrap();
        assert_eq!(image_name(&edited).unwrap(), "mirror/a:1");
        assert_eq!(edited[edited.len() - 6..], request[7..]);
    }

    #[test]
    fn a_request_without_an_image_gets_one() {
        let edited = replace_image_and_auth(&[0x10, 1], "a", AuthEdit::Keep).unwrap();
        assert_eq!(edited[..], [0x10, 1, 0x0a, 3, 0x0a, 1, b'a']);
    }

    #[test]
    fn removing_credentials_leaves_none_of_several() {
        let mut request = Vec::new();
        put_field(AUTH, &[0x0a, 1, b'u'], &mut request);
        put_field(IMAGE, &[0x0a, 1, b'i'], &mut request);
        put_field(AUTH, &[0x12, 1, b'p'], &mut request);
        let edited = replace_image_and_auth(&request, "j", AuthEdit::Remove).unwrap();
        assert_eq!(edited[..], [0x0a, 3, 0x0a, 1, b'j']);

        let credentials = Credentials::new("x", "y:z");
        let replacement = AuthEdit::Replace {
            credentials: &credentials,
            server_address: "https://registry.example.com:5000",
        };
        let edited = replace_image_and_auth(&request, "j", replacement).unwrap();
        let auth = request_auth(&edited).unwrap().unwrap();
        assert_eq!(auth.server_address, "https://registry.example.com:5000");
        assert_eq!(auth.basic(), Some(credentials));
    }

    #[test]
    fn the_name_in_a_containers_config_is_replaced_and_nothing_beside_it() {
        let spec = ImageSpec {
            image: "a:1".into(),
            user_specified_image: "a:1".into(),
            ..ImageSpec::default()
        };
        let mut config = vec![0x0a, 2, 0x0a, 0]; // metadata
        put_field(2, &spec.encode_to_vec(), &mut config);
        put_field(100, b"not known", &mut config);
        let mut request = Vec::new();
        put_field(1, b"sandbox", &mut request);
        put_field(2, &config, &mut request);
        put_field(3, b"a:1", &mut request);
        let name =
            |message: &[u8]| text_at(message, CONTAINER_IMAGE_NAME).map(|n| n.map(str::to_owned));
        assert_eq!(name(&request).unwrap().as_deref(), Some("a:1"));
        let edited = replace_text(&request, CONTAINER_IMAGE_NAME, "mirror/a:1").unwrap();
        assert_eq!(name(&edited).unwrap().as_deref(), Some("mirror/a:1"));
        assert_eq!(
            replace_text(&edited, CONTAINER_IMAGE_NAME, "a:1").unwrap(),
            request
        );
        let status = crate::wire::image_status_request(&edited, &[2, 2]).unwrap();
        let status = ImageStatusRequest::decode(&status[..]).unwrap();
        let expected = ImageSpec {
            image: "mirror/a:1".into(),
            ..spec
        };
        assert_eq!(status.image, Some(expected));
        assert!(name(&[0x12, 1, 0x12]).is_err());
        assert!(replace_text(&[0x12, 1, 0x12], CONTAINER_IMAGE_NAME, "a").is_err());
        assert_eq!(name(&[]).unwrap(), None);
    }

    /// `ImageStatusRequest.verbose` has the number that `auth` has in a pull.
    #[test]
    fn field_two_of_other_requests_stays() {
        let request = [0x10, 1, 0x0a, 3, 0x0a, 1, b'i'];
        let edited = replace_image_and_auth(&request, "j", AuthEdit::Keep).unwrap();
        assert_eq!(edited[..], [0x10, 1, 0x0a, 3, 0x0a, 1, b'j']);
        assert_eq!(
            replace_image_and_auth(&request, "j", AuthEdit::Remove),
            Err(WireError::UnexpectedType(2))
        );
    }
}
