//! Lines for people. What a line quotes can't begin another one.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The longest message: a line, not a file.
const MAX_MESSAGE: usize = 32 * 1024;

/// `2026-11-28T10:00:00.123456Z  INFO message`.
pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        head(&mut writer, *event.metadata().level())?;
        writeln!(writer, "{}", message(event))
    }
}

/// The line that says that `lost` lines were.
pub(super) fn notice(lost: u64) -> String {
    let mut line = String::new();
    // A String takes everything.
    let _ = head(&mut Writer::new(&mut line), Level::WARN);
    line.push_str(&lines_lost(lost));
    line
}

/// What is said about lost lines, in any format.
pub(super) fn lines_lost(lost: u64) -> String {
    format!("log: {lost} lines lost, because nobody read them in time")
}

fn head(writer: &mut Writer<'_>, level: Level) -> fmt::Result {
    let colors = writer.has_ansi_escapes();
    let (dim, reset) = if colors {
        ("\x1b[2m", "\x1b[0m")
    } else {
        ("", "")
    };
    let color = match level {
        _ if !colors => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    };
    writer.write_str(dim)?;
    SystemTime.format_time(writer)?;
    write!(writer, "{reset} {color}{level:>5}{reset} ")
}

/// An event's message and fields on one line: control characters are written as escapes, as in `\n`.
pub(super) fn message(event: &Event<'_>) -> String {
    let mut visitor = Message::default();
    event.record(&mut visitor);
    let mut text = visitor.message;
    text.push_str(&visitor.fields);
    one_line(&text)
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if line.len() > MAX_MESSAGE {
            line.push('…');
            break;
        }
        // The two separators are line ends to some viewers.
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_begins_another_line() {
        assert_eq!(
            one_line("a\r\nb\u{1b}[2Jc\u{9b}\u{2028}\tü"),
            "a\\r\\nb\\u{1b}[2Jc\\u{9b}\\u{2028}\\tü"
        );
        assert!(one_line(&"x".repeat(1 << 20)).len() < MAX_MESSAGE + 8);
    }

    #[derive(Clone, Default)]
    struct Buffer(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Text)
            .with_writer(move || writer.clone());
        let subscriber =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
        tracing::subscriber::with_default(subscriber, || {
            let forged = "a\n2026-01-01T00:00:00Z  INFO forged";
            tracing::warn!(path = forged, "cannot read {forged}");
        });
        let text = String::from_utf8(buffer.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = "  WARN cannot read a\\n2026-01-01T00:00:00Z  INFO forged path=\"a\\n2026-01-01T00:00:00Z  INFO forged\"\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn lost_lines_are_a_line_like_others() {
        let line = notice(7);
        assert!(
            line.ends_with("Z  WARN log: 7 lines lost, because nobody read them in time"),
            "{line}"
        );
    }
}
