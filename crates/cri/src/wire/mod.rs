//! The protobuf fields that the image calls turn on, read and replaced in the encoded bytes.
//!
//! A typed decoder drops the fields it does not know, and with them whatever a newer kubelet
//! added. So messages are never decoded as a whole: the few fields we need are found on the wire,
//! and an edit changes those and the lengths around them, nothing else.
//!
//! Field numbers are those of `runtime.v1` and `runtime.v1alpha2`, which are the same here.
//! Protobuf's merge rules hold: a message field that comes in several parts is one message,
//! and of a scalar that comes several times the last one counts.
//!
//! Everything is pure and fails with [`WireError`] on what it can't read with certainty; the caller
//! then forwards the bytes as they came and leaves the verdict to the runtime.

mod auth;
mod edit;
mod fields;
#[cfg(test)]
mod tests;

pub use auth::{AuthEdit, RequestAuth, request_auth};
pub use edit::{replace_image_and_auth, replace_text};
pub use fields::WireError;

pub(crate) use fields::{Fields, WireType, put_field};

use fields::text;

/// Where the name is in PullImageRequest, ImageStatusRequest and RemoveImageRequest: `image.image`.
pub const IMAGE_NAME: &[u32] = &[1, 1];
/// Where the name is in the filter of ListImagesRequest: `filter.image.image`.
pub const FILTERED_IMAGE_NAME: &[u32] = &[1, 1, 1];
/// Where the name is in CreateContainerRequest: `config.image.image`.
pub const CONTAINER_IMAGE_NAME: &[u32] = &[2, 2, 1];
/// `PullImageRequest.auth`.
const AUTH: u32 = 2;

/// The image name of a PullImageRequest, ImageStatusRequest or RemoveImageRequest; empty when there is
/// none.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn image_name(request: &[u8]) -> Result<&str, WireError> {
    Ok(text_at(request, IMAGE_NAME)?.unwrap_or_default())
}

/// What an ImageStatusResponse says: `None` when the image is not present (field 1 absent), else
/// its ID (field 1.1), which is empty when the runtime gave none.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn status_image_id(response: &[u8]) -> Result<Option<&str>, WireError> {
    text_at(response, &[1, 1])
}

/// The text at `path`, a field number for each level. `None` when the message that should hold it
/// never occurs; empty when that is there without it.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn text_at<'a>(message: &'a [u8], path: &[u32]) -> Result<Option<&'a str>, WireError> {
    let mut found = None;
    find_text(message, path, &mut found)?;
    Ok(found)
}

fn find_text<'a>(
    message: &'a [u8],
    path: &[u32],
    found: &mut Option<&'a str>,
) -> Result<(), WireError> {
    let Some((number, rest)) = path.split_first() else {
        return Ok(());
    };
    for field in Fields::of(message) {
        let field = field?;
        if field.number != *number {
            continue;
        }
        let value = field.expect(WireType::Len)?;
        match rest.len() {
            0 => *found = Some(text(value)?),
            1 => {
                found.get_or_insert("");
                find_text(value, rest, found)?;
            }
            _ => find_text(value, rest, found)?,
        }
    }
    Ok(())
}

/// An ImageStatusRequest for the ImageSpec that is at `path` in another request, whatever that has in it.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub(crate) fn image_status_request(request: &[u8], path: &[u32]) -> Result<Vec<u8>, WireError> {
    let mut spec = Vec::new();
    collect_parts(request, path, &mut spec)?;
    let mut out = Vec::with_capacity(spec.len() + 8);
    put_field(1, &spec, &mut out);
    Ok(out)
}

/// The parts of the message at `path`, one after another, which is what merging them means.
fn collect_parts(message: &[u8], path: &[u32], out: &mut Vec<u8>) -> Result<(), WireError> {
    let Some((number, rest)) = path.split_first() else {
        out.extend_from_slice(message);
        return Ok(());
    };
    for field in Fields::of(message) {
        let field = field?;
        if field.number == *number {
            collect_parts(field.expect(WireType::Len)?, rest, out)?;
        }
    }
    Ok(())
}

/// The texts of a repeated field.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub(crate) fn texts(message: &[u8], number: u32) -> Result<Vec<&str>, WireError> {
    let mut texts = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        if field.number == number {
            texts.push(text(field.expect(WireType::Len)?)?);
        }
    }
    Ok(texts)
}

/// The message with each message of a repeated field replaced; everything else as it was.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty, or what `edit` says.
pub(crate) fn map_messages(
    message: &[u8],
    number: u32,
    edit: impl Fn(&[u8]) -> Result<Vec<u8>, WireError>,
) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(message.len() + 256);
    for field in Fields::of(message) {
        let field = field?;
        if field.number == number {
            put_field(number, &edit(field.expect(WireType::Len)?)?, &mut out);
        } else {
            out.extend_from_slice(message.get(field.span).unwrap_or_default());
        }
    }
    Ok(out)
}
