//! Base64 as `-bin` metadata has it: padded or not when read, not padded when written.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn decode(value: &[u8]) -> Option<Vec<u8>> {
    ENGINE.decode(value).ok()
}

pub(super) fn encode(value: &[u8]) -> String {
    ENGINE.encode(value)
}
