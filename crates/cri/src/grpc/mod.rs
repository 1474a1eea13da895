//! gRPC over HTTP/2, as far as a proxy needs it: message framing, status, deadlines.
//!
//! Source: the gRPC project's `PROTOCOL-HTTP2.md` and `compression.md`.

mod base64_header;
mod code;
mod frame;
mod status;
mod timeout;

pub use code::Code;
pub use frame::{FrameError, MAX_DECOMPRESSED, Message, frame, single_message};
pub use status::{Status, append_line};
pub use timeout::{format_timeout, parse_timeout};

use http::HeaderName;

/// `grpc-status`: the code, in decimal.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`: the message, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `grpc-status-details-bin`: a `google.rpc.Status` in base64.
pub const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// `grpc-timeout`: how long the client is going to wait.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `grpc-encoding`: how messages with the compressed flag are compressed.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
