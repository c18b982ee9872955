//! Writes logs to standard error, as human-readable or JSON lines that never contain a value.
//!
//! There are two filters in a row: the user's, and a ceiling that the user cannot raise. The operator's own code never logs
//! a value at any level. Other crates do: kube-client logs a whole response body at WARN when it cannot decode it, and HTTP
//! and TLS crates log frames at TRACE. So other crates may log from WARN, and kube-client only at ERROR. For the same
//! reason the operator does not read `RUST_LOG`.

use std::ffi::OsString;
use std::fmt::Result as FmtResult;
use std::io::IsTerminal;

use clap::ValueEnum;
use jiff::Timestamp;
use managed_secrets_cli::CliError;
use serde_json::{Map, Value, json};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
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
        LogFormat::Human => fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
        LogFormat::Json => {
            fmt::layer().fmt_fields(JsonFields::new()).event_format(JsonLine).with_writer(writer).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)))
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
        writeln!(writer, "{}", Value::Object(line))
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
