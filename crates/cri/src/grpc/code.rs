//! Status codes, and what HTTP/2 says where gRPC says nothing.

use h2::Reason;
use http::{HeaderMap, StatusCode};

use super::GRPC_STATUS;

/// A gRPC status code. A number, not a closed enum: a code that is not invented yet must pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

impl Code {
    /// Success.
    pub const OK: Self = Self(0);
    /// The call was cancelled, usually by the caller.
    pub const CANCELLED: Self = Self(1);
    /// Nothing more is known.
    pub const UNKNOWN: Self = Self(2);
    /// The request is wrong in itself.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The caller's deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// What was asked for does not exist.
    pub const NOT_FOUND: Self = Self(5);
    /// What was to be made is there already.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// The caller may not do this.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// It can't be done in the state that things are in.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// The method does not exist.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// The peer broke the protocol or itself.
    pub const INTERNAL: Self = Self(13);
    /// The peer can't be reached now; trying again may work.
    pub const UNAVAILABLE: Self = Self(14);
    /// The caller did not prove who it is.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// Reads `grpc-status` of a trailer block, or of the headers of a trailers-only answer. `None` when
    /// there is none; one that is no number is `UNKNOWN`, as in grpc-go.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(GRPC_STATUS)?.to_str().ok();
        Some(
            code.and_then(|code| code.parse().ok())
                .map_or(Self::UNKNOWN, Self),
        )
    }

    /// The code for a stream that the runtime reset, as grpc-go's client maps it.
    pub fn from_reset(reason: Reason) -> Self {
        match reason {
            Reason::CANCEL => Self::CANCELLED,
            Reason::REFUSED_STREAM => Self::UNAVAILABLE,
            Reason::ENHANCE_YOUR_CALM | Reason::FLOW_CONTROL_ERROR => Self::RESOURCE_EXHAUSTED,
            Reason::INADEQUATE_SECURITY => Self::PERMISSION_DENIED,
            _ => Self::INTERNAL,
        }
    }

    /// The code for an HTTP answer without `grpc-status` (`http-grpc-status-mapping.md`).
    pub fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_map_as_in_grpc_go() {
        for (reason, code) in [
            (Reason::NO_ERROR, 13),
            (Reason::PROTOCOL_ERROR, 13),
            (Reason::INTERNAL_ERROR, 13),
            (Reason::FLOW_CONTROL_ERROR, 8),
            (Reason::REFUSED_STREAM, 14),
            (Reason::CANCEL, 1),
            (Reason::ENHANCE_YOUR_CALM, 8),
            (Reason::INADEQUATE_SECURITY, 7),
            (Reason::HTTP_1_1_REQUIRED, 13),
        ] {
            assert_eq!(Code::from_reset(reason), Code(code), "{reason:?}");
        }
    }

    #[test]
    fn http_statuses_map_as_the_grpc_document_says() {
        for (status, code) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (503, 14),
            (418, 2),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Code::from_http(status), Code(code), "{status}");
        }
    }
}
