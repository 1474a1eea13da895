//! Parts that nobody else may use, for the properties that fuzzing checks (crate `properties`).

/// The parts that a `Range` header asks for of a blob of that length, each from its first byte to its end (not
/// included). None where there are none: all of it is given, or nothing.
pub fn range(header: &str, length: u64) -> Option<Vec<(u64, u64)>> {
    crate::api::parts(header, length)
}
