//! Small files that an operator, a kubelet or a mounted volume writes: certificates, credentials, tokens.
//!
//! A path in a config may lead to a pipe, to a device, or to a file system whose server is gone. Opening
//! such a thing can take for ever, and a thread that waits for it can't be ended. So only regular files are
//! read, at most up to a bound, and those who need the same thing wait for one thread together, however
//! often they come back.
//!
//! | module | what it knows |
//! |---|---|
//! | [`read_regular`], [`read_text`], [`read_start`] | reading, on the thread that calls |
//! | [`read()`], [`read_bytes`], [`read_file_or_folder`] | the same on a thread of its own, for a while |
//! | [`OnePerKey`] | one thread per thing that may never end |

mod one_per_key;
mod read;

pub use one_per_key::{OnePerKey, RunError};
pub use read::{
    READ_TIMEOUT, Texts, read, read_bytes, read_file_or_folder, read_regular, read_start, read_text,
};
