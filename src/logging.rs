//! Writes logs to standard error, as human-readable or JSON lines that never contain a value.
//!
//! Each event is one line in which every character is visible: messages of the API server, names and other text that the
//! operator did not write can hold escape sequences, line breaks and bidirectional characters ([`say::visible`]).
//!
//! There are two filters in a row: the user's, and a ceiling that the user cannot raise. The operator's own code never logs
//! a value at any level. Other crates do: kube-client logs a whole response body at WARN when it cannot decode it, and HTTP
//! and TLS crates log frames at TRACE. So other crates may log from WARN, and kube-client only at ERROR. For the same
//! reason the operator does not read `RUST_LOG`.

use std::ffi::OsString;
use std::fmt::{Debug, Result as FmtResult};
use std::io::IsTerminal;

use clap::ValueEnum;
use jiff::Timestamp;
use managed_secrets_cli::{CliError, say};
use serde_json::{Map, Value, json};
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// Returns the format that the arguments of `run` or the environment ask for. The arguments may be invalid: their errors
    /// are printed in this format.
    pub(super) fn asked_for(arguments: &[OsString]) -> Self {
        let words: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
        if words.get(1) != Some(&"run") {
            return Self::Human;
        }
        let flag = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--log-format")? {
            "" => words.get(at + 1).copied(),
            value => value.strip_prefix('='),
        });
        let value = flag.map(str::to_owned).or_else(|| std::env::var("MANAGED_SECRETS_LOG_FORMAT").ok());
        value.and_then(|value| Self::from_str(&value, false).ok()).unwrap_or_default()
    }
}

/// Returns the JSON line of an error that ends the process. No filter removes it.
pub(super) fn fatal_line(error: &CliError) -> String {
    let mut line = Map::new();
    line.insert("message".to_owned(), json!(error.to_string()));
    line.insert("exitCode".to_owned(), json!(error.exit() as u8));
    origin(&mut line, Level::ERROR, module_path!());
    Value::Object(line).to_string()
}

/// Sends the process's logs to standard error. Call it once; a second call is an error.
pub(crate) fn init(format: LogFormat, filter: &str) -> Result<(), CliError> {
    subscriber(format, filter, std::io::stderr, std::io::stderr().is_terminal())?
        .try_init()
        .map_err(|error| CliError::failed("cannot start logging", &error))
}

/// Returns the highest levels that the user's filter can choose.
fn ceiling() -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::TRACE)
        .with_target("kube_client", LevelFilter::ERROR)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
    colours: bool,
) -> Result<impl Subscriber + Send + Sync + 'static, CliError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| CliError::Usage(format!("--log-level: {error}; must be a level or a list of TARGET=LEVEL")))?;
    let filter = wanted.and(ceiling());
    let layer = match format {
        LogFormat::Human => {
            let fields = debug_fn(visible_field).delimited(" ");
            fmt::layer().fmt_fields(fields).with_writer(writer).with_ansi(colours).boxed()
        }
        LogFormat::Json => {
            fmt::layer().fmt_fields(JsonFields::new()).event_format(JsonLine).with_writer(writer).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)))
}

/// Writes a field of a human-readable line.
///
/// The formatter of tracing-subscriber escapes some control characters, but neither line breaks nor characters that hide or
/// reorder text.
fn visible_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> FmtResult {
    let value = say::visible(&format!("{value:?}"));
    match field.name() {
        "message" => writer.write_str(&value),
        // Where the event comes from, of crates that use `log`; the line has it already.
        name if name.starts_with("log.") => Ok(()),
        name => write!(writer, "{}={value}", name.strip_prefix("r#").unwrap_or(name)),
    }
}

/// Formats an event as one JSON object per line: the event's fields, and under `span` those of all spans around it.
///
/// The formatter of tracing-subscriber writes the name of a span beside its fields. So a span with a field `name` (here the
/// object's) would have that key twice, and most readers see only the last one.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> FmtResult {
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        let mut line = object(&fields);
        let mut around = Map::new();
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            spans.push(span.name());
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                around.extend(object(&fields.fields));
            }
        }
        let metadata = event.metadata();
        origin(&mut line, *metadata.level(), metadata.target());
        if !spans.is_empty() {
            line.insert("span".to_owned(), Value::Object(around));
            line.insert("spans".to_owned(), json!(spans));
        }
        writeln!(writer, "{}", say::visible_json(&Value::Object(line).to_string()))
    }
}

/// What every line has.
fn origin(line: &mut Map<String, Value>, level: Level, target: &str) {
    line.insert("timestamp".to_owned(), json!(Timestamp::now().to_string()));
    line.insert("level".to_owned(), json!(level.as_str()));
    line.insert("target".to_owned(), json!(target));
}

/// Fields as [`JsonFields`] writes them.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use testkit::{child, is_child};

    use super::*;

    /// Log lines kept in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: LogFormat, filter: &str, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        lines.text()
    }

    #[test]
    fn other_crates_cannot_be_made_to_talk() {
        for filter in ["trace", "kube_client=trace,hyper=trace,rustls=debug,h2=trace,tower=trace", "[{canary}]=trace"] {
            let text = logged(LogFormat::Human, filter, || {
                tracing::trace!(target: "hyper::proto", "CANARY");
                tracing::trace!(target: "h2::codec", "CANARY");
                tracing::debug!(target: "rustls::conn", "CANARY");
                tracing::debug!(target: "tower::buffer", "CANARY");
                tracing::info!(target: "kube_runtime::watcher", "CANARY");
                tracing::debug!(target: "kube_client::client::builder", "CANARY");
                tracing::warn!(target: "kube_client::client", "CANARY");
                let span = tracing::trace_span!(target: "hyper", "request", canary = "CANARY");
                span.in_scope(|| tracing::error!(target: "managed_secrets::engine", "ours"));
            });
            assert!(!text.contains("CANARY"), "{filter}: {text}");
        }
    }

    #[test]
    fn our_own_lines_follow_the_users_filter() {
        let act = || {
            tracing::debug!(target: "managed_secrets::engine", "quiet");
            tracing::info!(target: "managed_secrets::engine", "loud");
            tracing::warn!(target: "kube_runtime::watcher", "other");
        };
        let text = logged(LogFormat::Human, "info", act);
        assert!(text.contains("loud") && text.contains("other") && !text.contains("quiet"), "{text}");
        assert!(logged(LogFormat::Human, "managed_secrets=debug", act).contains("quiet"));
        assert!(logged(LogFormat::Human, "off", act).is_empty());
    }

    #[test]
    fn json_lines_carry_the_spans_fields() {
        let text = logged(LogFormat::Json, "info", || {
            let span = tracing::info_span!(target: "managed_secrets", "reconcile", namespace = "shop", name = "db");
            span.in_scope(|| tracing::info!(target: "managed_secrets", reason = "Served", "written"));
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "written");
        assert_eq!(line["reason"], "Served");
        assert_eq!(line["span"], json!({"namespace": "shop", "name": "db"}));
        assert_eq!(line["spans"], json!(["reconcile"]));
    }

    /// What drives a terminal, forges a line, and hides or reorders text.
    const HOSTILE: &str = "a\u{1b}[2J\u{9b}1m\r\n::error::b\u{202e}c\u{200b}\u{2028}\u{7f}\u{0}d";

    /// Each way in which text gets into a line: messages and fields of events and spans, by Display, Debug and as an error.
    fn log_hostile_text() {
        let error = std::io::Error::other(HOSTILE);
        let span = tracing::info_span!(target: "managed_secrets", "reconcile", name = HOSTILE, shown = %HOSTILE);
        span.in_scope(|| {
            tracing::warn!(target: "managed_secrets", %error, text = HOSTILE, debug = ?HOSTILE, "failed: {HOSTILE}");
            let source: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(target: "managed_secrets", source, "with a source");
            span.record("shown", HOSTILE);
        });
    }

    #[test]
    fn hostile_text_is_visible_in_a_human_line() {
        for colours in [false, true] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = subscriber(LogFormat::Human, "info", move || writer.clone(), colours).unwrap();
            tracing::subscriber::with_default(subscriber, log_hostile_text);
            let text = lines.text();
            assert_eq!(text.lines().count(), 2, "{text:?}");
            let escaped = "a\\u{1b}[2J\\u{9b}1m\\r\\n::error::b\\u{202e}c\\u{200b}\\u{2028}\\u{7f}";
            let first = text.lines().next().unwrap();
            assert_eq!(first.matches(escaped).count(), 6, "{first:?}");
            for line in text.lines() {
                // The formatter's own colours.
                let plain = line.split("\u{1b}[").map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
                let plain: String = if colours { plain.collect() } else { line.to_owned() };
                assert_eq!(say::visible(&plain), plain);
            }
        }
        let plain = logged(LogFormat::Human, "info", || {
            tracing::info!(target: "managed_secrets", r#type = 1, text = "two", "done");
        });
        assert!(plain.ends_with(" INFO managed_secrets: done type=1 text=\"two\"\n"), "{plain:?}");
    }

    #[test]
    fn hostile_text_is_visible_in_a_json_line_and_keeps_its_meaning() {
        let text = logged(LogFormat::Json, "info", log_hostile_text);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        for line in text.lines() {
            assert_eq!(say::visible(line), line);
        }
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        for text in [&line["error"], &line["text"], &line["span"]["name"]] {
            assert_eq!(text, HOSTILE);
        }
        assert_eq!(line["message"], format!("failed: {HOSTILE}"));
        let fatal = say::visible_json(&fatal_line(&CliError::Failed(HOSTILE.to_owned())));
        assert_eq!(serde_json::from_str::<Value>(&fatal).unwrap()["message"], HOSTILE);
        assert_eq!(say::visible(&fatal), fatal);
    }

    #[test]
    fn the_format_is_known_before_the_arguments_are() {
        let of = |arguments: &[&str]| LogFormat::asked_for(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        for arguments in [
            &["managed-secrets", "run", "--log-format=json", "--wrong"][..],
            &["managed-secrets", "run", "--wrong", "--log-format", "json"],
        ] {
            assert_eq!(of(arguments), LogFormat::Json, "{arguments:?}");
        }
        for arguments in [
            &["managed-secrets", "run", "--log-format=xml"][..],
            &["managed-secrets", "run", "--log-format"],
            &["managed-secrets", "run", "--log-formats=json"],
            &["managed-secrets", "seal", "--log-format=json"],
            &["managed-secrets"],
        ] {
            assert_eq!(of(arguments), LogFormat::Human, "{arguments:?}");
        }
    }

    #[test]
    fn a_panic_is_a_json_line_and_its_message_is_not_shown() {
        const NAME: &str = "logging::tests::a_panic_is_a_json_line_and_its_message_is_not_shown";
        if is_child(NAME) {
            init(LogFormat::Json, "info").unwrap();
            managed_secrets_engine::run::log_panics();
            let panicked = std::panic::catch_unwind(|| panic!("CANARY"));
            assert!(panicked.is_err());
            return;
        }
        let output = child(NAME).unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["message"] == "panic" && line["level"] == "ERROR"), "{lines:?}");
        assert!(!format!("{lines:?}").contains("CANARY"));
    }

    #[test]
    fn a_wrong_filter_is_wrong_usage() {
        let error = init(LogFormat::Human, "managed_secrets=loud").expect_err("no such level");
        assert_eq!(error.exit(), managed_secrets_cli::Exit::Usage);
    }

    /// The reason for kube-client's place in the ceiling: without it, this test finds the body.
    #[tokio::test]
    async fn a_body_that_cannot_be_decoded_is_not_logged() {
        let answer = tower::service_fn(|_request: http::Request<kube::client::Body>| async {
            let body = kube::client::Body::from(br#"{"metadata":{"name":"db"},"data":"CANARY"}"#.to_vec());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(LogFormat::Human, "trace", move || writer.clone(), false).unwrap();
        let guard = tracing::subscriber::set_default(subscriber);
        let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
            kube::Api::namespaced(kube::Client::new(answer, "shop"), "shop");
        secrets.get("db").await.expect_err("data must be a map");
        tracing::info!("reached");
        drop(guard);
        assert!(lines.text().contains("reached") && !lines.text().contains("CANARY"), "{}", lines.text());
    }
}
