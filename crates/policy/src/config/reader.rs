//! What every part of the config needs while it is understood: the environment, and the findings so far.

use std::net::SocketAddr;

use super::diagnostic::Diagnostic;
use super::fields::Located;

/// Looks up a variable of the environment; passed in, so that this stays pure.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Understands what was written, and notes what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) environment: &'a Environment<'a>,
    pub(super) findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// An address to listen on; `None` for `off`.
    pub(super) fn address_or_off(
        &mut self,
        written: &Located<String>,
        field: &str,
    ) -> Option<SocketAddr> {
        let text = written.value.trim();
        if text == "off" {
            return None;
        }
        let parsed = listen_address(text);
        if parsed.is_none() {
            let message = "not an address to listen on; write `127.0.0.1:7441`, or `off`";
            self.findings
                .push(Diagnostic::error(written.position, field, message));
        }
        parsed
    }
}

/// An address to listen on. Go programs write `:9100` for every address and `localhost` for loopback.
pub(super) fn listen_address(text: &str) -> Option<SocketAddr> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("[::]{text}"),
        None => text.to_owned(),
    };
    text.parse().ok()
}
