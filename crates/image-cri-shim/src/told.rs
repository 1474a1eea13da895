//! What is said of an error.

/// An error with its reasons, each of them once: some name their reason themselves. Who is not root is told where that
/// may be all that is wrong.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for reason in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = reason;
        } else if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
    }
    let is_refused = text.contains("(os error 13)") && !text.contains("as root");
    match is_refused && !rustix::process::geteuid().is_root() {
        true => format!("{text}; run this as root"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading it: {0}")]
    struct Reading(#[source] std::io::Error);

    #[test]
    fn no_reason_is_told_twice() {
        let error = std::io::Error::other("the disk");
        let error = Err::<(), _>(Reading(error)).context("nodeCache.dir");
        let error = error.unwrap_err();
        assert_eq!(told(&error), "nodeCache.dir: reading it: the disk");
        assert_eq!(told(&anyhow::anyhow!("alone")), "alone");
    }
}
