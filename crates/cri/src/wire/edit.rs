//! Replacing the image name and the credentials of a request.

use bytes::Bytes;
use policy::Credentials;

use super::fields::{Field, Fields, WireError, WireType, put_field, text};
use super::{AUTH, IMAGE, IMAGE_NAME};

/// What becomes of `PullImageRequest.auth`.
#[derive(Debug, Clone, Copy)]
pub enum AuthEdit<'a> {
    /// Stays as it came, byte for byte.
    Keep,
    /// Every occurrence is removed, whatever it holds: the pull is anonymous.
    Remove,
    /// Every occurrence is removed, unknown fields inside it too (they may be secrets of a newer
    /// kubelet), and one with this user name and password stands where the last one was.
    Replace(&'a Credentials),
}

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
    let targets = Targets::find(request, matches!(auth, AuthEdit::Keep))?;
    let mut out = Vec::with_capacity(request.len() + name.len() + 64);
    let mut copied = 0;
    for field in Fields::of(request) {
        let field = field?;
        let is_image = targets.image == Some(field.span.start);
        let is_auth = field.number == AUTH && !matches!(auth, AuthEdit::Keep);
        if !is_image && !is_auth {
            continue;
        }
        out.extend_from_slice(request.get(copied..field.span.start).unwrap_or_default());
        copied = field.span.end;
        if is_image {
            put_field(IMAGE, &edit_spec(field.value, targets.name, name), &mut out);
        } else if targets.auth == Some(field.span.start) {
            put_auth(auth, &mut out);
        }
    }
    out.extend_from_slice(request.get(copied..).unwrap_or_default());
    if targets.image.is_none() {
        put_field(IMAGE, &edit_spec(&[], None, name), &mut out);
    }
    if targets.auth.is_none() {
        put_auth(auth, &mut out);
    }
    Ok(Bytes::from(out))
}

/// The fields to change, by where they start. Of fields that occur several times it is the
/// occurrence that counts for a decoder: the last.
struct Targets {
    /// The ImageSpec (part) to edit: the last one that has a name, else the last one.
    image: Option<usize>,
    /// The name's span inside that part.
    name: Option<(usize, usize)>,
    /// The last AuthConfig (part).
    auth: Option<usize>,
}

impl Targets {
    /// Also checks everything that is going to be relied upon, so that an edit never makes a message
    /// readable that was not.
    fn find(request: &[u8], keep_auth: bool) -> Result<Self, WireError> {
        let mut targets = Self {
            image: None,
            name: None,
            auth: None,
        };
        for field in Fields::of(request) {
            let field = field?;
            match field.number {
                IMAGE => {
                    let name = last_name(field.expect(WireType::Len)?)?;
                    if name.is_some() || targets.name.is_none() {
                        targets.image = Some(field.span.start);
                        targets.name = name.map(|name| (name.span.start, name.span.end));
                    }
                }
                AUTH if !keep_auth => {
                    field.expect(WireType::Len)?;
                    targets.auth = Some(field.span.start);
                }
                _ => {}
            }
        }
        Ok(targets)
    }
}

fn last_name(spec: &[u8]) -> Result<Option<Field<'_>>, WireError> {
    let mut last = None;
    for field in Fields::of(spec) {
        let field = field?;
        if field.number == IMAGE_NAME {
            text(field.expect(WireType::Len)?)?;
            last = Some(field);
        }
    }
    Ok(last)
}

fn edit_spec(spec: &[u8], old: Option<(usize, usize)>, name: &str) -> Vec<u8> {
    let (start, end) = old.unwrap_or((spec.len(), spec.len()));
    let mut out = Vec::with_capacity(spec.len() + name.len() + 8);
    out.extend_from_slice(spec.get(..start).unwrap_or_default());
    put_field(IMAGE_NAME, name.as_bytes(), &mut out);
    out.extend_from_slice(spec.get(end..).unwrap_or_default());
    out
}

fn put_auth(auth: AuthEdit<'_>, out: &mut Vec<u8>) {
    if let AuthEdit::Replace(credentials) = auth {
        let mut config = Vec::new();
        put_field(1, credentials.username().as_bytes(), &mut config);
        put_field(2, credentials.expose_password().as_bytes(), &mut config);
        put_field(AUTH, &config, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{image_name, request_auth};

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
        let edited =
            replace_image_and_auth(&request, "j", AuthEdit::Replace(&credentials)).unwrap();
        assert_eq!(
            request_auth(&edited).unwrap().unwrap().basic(),
            Some(credentials)
        );
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
