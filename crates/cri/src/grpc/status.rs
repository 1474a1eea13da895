//! A call's outcome: `grpc-status`, `grpc-message` and `grpc-status-details-bin`.

use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use super::{Code, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, base64_header};

/// What `grpc-message` must escape: all but space to `~`, and `%` itself. (What is not ASCII is always
/// escaped by the crate.)
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// A call's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The message, not percent-encoded. Bytes that are no UTF-8 show as U+FFFD.
    pub message: String,
}

impl Status {
    /// A status from its parts.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Reads the status in a trailer block, or in the headers of a trailers-only answer. `None` when
    /// there is no `grpc-status`; one that is no number is `UNKNOWN`, as in grpc-go.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let code = Code::from_headers(headers)?;
        let message = headers.get(GRPC_MESSAGE).map_or_else(String::new, |value| {
            percent_decode(value.as_bytes())
                .decode_utf8_lossy()
                .into_owned()
        });
        Some(Self { code, message })
    }

    /// True for `OK`.
    pub fn is_ok(&self) -> bool {
        self.code == Code::OK
    }

    /// Sets `grpc-status` and, where there is a message, `grpc-message`.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code.0));
        if self.message.is_empty() {
            headers.remove(GRPC_MESSAGE);
        } else if let Some(value) = encoded(&self.message) {
            headers.insert(GRPC_MESSAGE, value);
        }
    }
}

/// Appends `line`, after a newline, to the message in a trailer block (or in the headers of a
/// trailers-only answer), and to the message inside `grpc-status-details-bin`, which clients like
/// kubelet prefer when it is there. The code and the details stay as they are; details that can't be
/// read stay untouched. Does nothing where there is no `grpc-status`.
pub fn append_line(headers: &mut HeaderMap, line: &str) {
    let Some(mut status) = Status::from_headers(headers) else {
        return;
    };
    push_line(&mut status.message, line);
    status.write_to(headers);
    let appended = headers
        .get(GRPC_STATUS_DETAILS)
        .and_then(|value| base64_header::decode(value.as_bytes()))
        .and_then(|details| append_to_details(&details, line))
        .and_then(|details| HeaderValue::try_from(base64_header::encode(&details)).ok());
    if let Some(value) = appended {
        headers.insert(GRPC_STATUS_DETAILS, value);
    }
}

/// `google.rpc.Status` with the line appended to its message (field 2); all other fields, the
/// details (3) and unknown ones, stay byte for byte. `None` when it can't be read.
fn append_to_details(details: &[u8], line: &str) -> Option<Vec<u8>> {
    const MESSAGE: u32 = 2;
    let mut message = String::new();
    let mut rest = Vec::with_capacity(details.len());
    for field in crate::wire::Fields::of(details) {
        let field = field.ok()?;
        if field.number == MESSAGE {
            let value = field.expect(crate::wire::WireType::Len).ok()?;
            message = std::str::from_utf8(value).ok()?.to_owned();
        } else {
            rest.extend_from_slice(details.get(field.span)?);
        }
    }
    push_line(&mut message, line);
    // Order between fields of different numbers has no meaning in protobuf.
    let mut out = Vec::with_capacity(details.len() + line.len() + 8);
    crate::wire::put_field(MESSAGE, message.as_bytes(), &mut out);
    out.extend_from_slice(&rest);
    Some(out)
}

fn push_line(message: &mut String, line: &str) {
    if !message.is_empty() {
        message.push('\n');
    }
    message.push_str(line);
}

fn encoded(message: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(percent_encode(message.as_bytes(), ESCAPED).to_string()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use testkit::cri_api::{Any, RpcStatus};

    use super::*;

    fn trailers(code: &'static str, message: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_static(code));
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
        headers
    }

    #[test]
    fn a_status_is_read() {
        let read = |code, message| Status::from_headers(&trailers(code, message)).unwrap();
        assert_eq!(
            read("5", "not%20found: 100%25"),
            Status::new(Code::NOT_FOUND, "not found: 100%")
        );
        assert_eq!(read("0", ""), Status::new(Code::OK, ""));
        // Broken escapes stay as they are, as the gRPC document asks.
        assert_eq!(read("2", "50% %zz").message, "50% %zz");
        assert_eq!(read("x", "").code, Code::UNKNOWN);
        assert_eq!(read("77", "").code, Code(77));
        assert_eq!(Status::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_line_is_appended_to_message_and_details() {
        let details = RpcStatus {
            code: 5,
            message: "no such image".into(),
            details: vec![Any {
                type_url: "t/a".into(),
                value: vec![1, 2, 3],
            }],
        };
        let mut bytes = details.encode_to_vec();
        bytes.extend([0xa2, 0x06, 1, b'u']); // field 100, not known
        for pad in ["", "="] {
            let mut headers = trailers("5", "no%20such image");
            let mut encoded = base64_header::encode(&bytes);
            if !pad.is_empty() {
                while !encoded.len().is_multiple_of(4) {
                    encoded.push_str(pad);
                }
            }
            headers.insert(GRPC_STATUS_DETAILS, HeaderValue::try_from(encoded).unwrap());
            append_line(&mut headers, "tried: a (404)");

            let message = "no such image\ntried: a (404)";
            let status = Status::from_headers(&headers).unwrap();
            assert_eq!(status, Status::new(Code::NOT_FOUND, message));
            assert_eq!(headers[GRPC_MESSAGE], "no such image%0Atried: a (404)");
            let bytes = base64_header::decode(headers[GRPC_STATUS_DETAILS].as_bytes()).unwrap();
            assert!(bytes.ends_with(&[0xa2, 0x06, 1, b'u']));
            let read = RpcStatus::decode(&bytes[..]).unwrap();
            assert_eq!(read.message, message);
            assert_eq!((read.code, read.details), (5, details.details.clone()));
        }
    }

    #[test]
    fn details_that_cannot_be_read_stay() {
        for value in ["!!", "CgUB"] {
            let mut headers = trailers("13", "");
            headers.insert(GRPC_STATUS_DETAILS, HeaderValue::from_static(value));
            append_line(&mut headers, "line");
            assert_eq!(headers[GRPC_STATUS_DETAILS], value);
            assert_eq!(headers[GRPC_MESSAGE], "line");
        }
    }

    #[test]
    fn nothing_is_appended_where_there_is_no_status() {
        let mut headers = HeaderMap::new();
        append_line(&mut headers, "line");
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn any_message_survives(message in ".*") {
            let mut headers = HeaderMap::new();
            let status = Status::new(Code::INTERNAL, message);
            status.write_to(&mut headers);
            if let Some(value) = headers.get(GRPC_MESSAGE) {
                prop_assert!(value.as_bytes().iter().all(|b| (0x20..0x7f).contains(b)));
            }
            prop_assert_eq!(Status::from_headers(&headers).unwrap(), status);
        }
    }
}
