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

pub use auth::{RequestAuth, request_auth};
pub use edit::{AuthEdit, replace_image_and_auth};
pub use fields::WireError;

pub(crate) use fields::{Fields, WireType, put_field};

use fields::text;

/// `PullImageRequest.image`, `ImageStatusRequest.image`, `RemoveImageRequest.image`.
const IMAGE: u32 = 1;
/// `ImageSpec.image`.
const IMAGE_NAME: u32 = 1;
/// `PullImageRequest.auth`.
const AUTH: u32 = 2;

/// The image name (field 1.1) of a PullImageRequest, ImageStatusRequest or RemoveImageRequest;
/// empty when there is none.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn image_name(request: &[u8]) -> Result<&str, WireError> {
    Ok(nested_string(request, IMAGE, IMAGE_NAME)?.unwrap_or_default())
}

/// What an ImageStatusResponse says: `None` when the image is not present (field 1 absent), else
/// its ID (field 1.1), which is empty when the runtime gave none.
///
/// # Errors
/// Any [`WireError`]: the message can't be read with certainty.
pub fn status_image_id(response: &[u8]) -> Result<Option<&str>, WireError> {
    nested_string(response, 1, 1)
}

/// String `inner` of message field `outer`; `None` when `outer` never occurs.
fn nested_string(message: &[u8], outer: u32, inner: u32) -> Result<Option<&str>, WireError> {
    let mut found = None;
    for field in Fields::of(message) {
        let field = field?;
        if field.number != outer {
            continue;
        }
        let part = field.expect(WireType::Len)?;
        let name = found.get_or_insert("");
        for field in Fields::of(part) {
            let field = field?;
            if field.number == inner {
                *name = text(field.expect(WireType::Len)?)?;
            }
        }
    }
    Ok(found)
}
