//! The OCI distribution specification 1.1, as far as a registry that is pulled from has to follow it: one
//! test for each MUST and each SHOULD of the categories pull and content discovery, of error codes, of
//! warnings and of proxying. A test is named after what the specification says.

mod blobs;
mod discovery;
mod errors;
mod manifests;
mod proxying;
mod ranges;
mod referrers;
mod tags;
