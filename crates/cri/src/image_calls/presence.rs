//! Whether the runtime has an image, by its answer to an ImageStatus.

use super::attempt::AttemptResult;
use crate::grpc::Code;
use crate::wire;

/// What an answer to an ImageStatus says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The image is there.
    Present,
    /// It is not.
    Absent,
    /// Nothing about the image, but that the runtime does not know this spelling.
    Refused,
    /// Nothing at all: the runtime can't be reached, has no time, or does not know the call.
    Unknown,
}

impl Presence {
    pub(super) fn of(answer: &AttemptResult) -> Self {
        let Ok(reply) = answer else {
            return Self::Unknown;
        };
        match reply.status().code {
            Code::OK => {
                let message = reply.message();
                let id = message.as_deref().map(wire::status_image_id);
                match id {
                    Ok(Ok(Some(_))) => Self::Present,
                    _ => Self::Absent,
                }
            }
            Code::CANCELLED | Code::DEADLINE_EXCEEDED | Code::UNAVAILABLE | Code::UNIMPLEMENTED => {
                Self::Unknown
            }
            _ => Self::Refused,
        }
    }
}
