//! `managed-secrets seal`: a value goes in, sealed text for `spec.value` comes out.
//!
//! ```text
//! --public-key FILE, or the cluster's ConfigMap ──▶ public key ──▶ --fingerprint ──┐
//! standard input, or a terminal without echo ─────▶ value ─────────────────────────┴▶ sealed text
//! ```
//!
//! The value is on no command line (every user of the machine can read those) and in no error.

use std::io::{IsTerminal, Read};
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use zeroize::Zeroizing;

use super::{CliError, SealArgs, SealScope, connect, print};
use crate::api::keys::{PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use crate::api::limits::VALUE_MAX;
use crate::crypto::mss1::{self, PublishedKey, Scope};
use crate::crypto::{Plaintext, ValueError};

/// Bytes of the longest value: a Unicode scalar value is at most four in UTF-8.
const VALUE_BYTES_MAX: usize = 4 * VALUE_MAX;

/// Seals one value and prints the text.
pub(super) fn seal(args: &SealArgs) -> Result<(), CliError> {
    let scope = scope(args)?;
    let pin = args.fingerprint.as_deref().map(fingerprint).transpose()?;
    let document = match &args.public_key {
        Some(file) => read_file(file)?,
        None => read_cluster(&args.operator_namespace)?,
    };
    let published = check_key(&document, pin.as_deref())?;
    if pin.is_none() {
        eprintln!("note: sealing with the public key of SHA-256 {}", published.key.fingerprint());
    }
    if published.not_after < Timestamp::now() {
        eprintln!(
            "note: this public key was to be replaced by {}; ask the cluster for its present one",
            published.not_after
        );
    }
    let value = if std::io::stdin().is_terminal() { ask()? } else { read_value(std::io::stdin().lock())? };
    let sealed = mss1::seal(&published.key, &scope, &value).map_err(|error| match error {
        mss1::SealError::Scope(rule) => CliError::Usage(format!("--namespace and --name {rule}")),
        other => CliError::failed("cannot seal", &other),
    })?;
    print(&format!("{sealed}\n"))
}

/// The scope that the flags ask for. A flag that the scope ignores is refused: whoever gave it expects it to bind.
fn scope(args: &SealArgs) -> Result<Scope, CliError> {
    let usage = |text: &str| CliError::Usage(text.to_owned());
    match (args.scope, args.namespace.clone(), args.name.clone()) {
        (SealScope::Strict, Some(namespace), Some(name)) => Ok(Scope::Strict { namespace, name }),
        (SealScope::Strict, _, None) => Err(usage("--name is missing: the ManagedSecret that the value is for")),
        (SealScope::Strict | SealScope::Namespace, None, _) => {
            Err(usage("--namespace is missing: that of the ManagedSecret that the value is for"))
        }
        (SealScope::Namespace, Some(namespace), None) => Ok(Scope::Namespace { namespace }),
        (SealScope::Cluster, None, None) => Ok(Scope::Cluster),
        (SealScope::Namespace, ..) => Err(usage("--name has no place with --scope namespace")),
        (SealScope::Cluster, ..) => Err(usage("--namespace and --name have no place with --scope cluster")),
    }
}

/// A SHA-256 as people write it: 64 hex digits in either case, perhaps after `sha256:`.
fn fingerprint(text: &str) -> Result<String, CliError> {
    let digits = text.trim().trim_start_matches("sha256:").to_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(CliError::Usage("--fingerprint must be a SHA-256: 64 hex digits".to_owned()))
    }
}

fn read_file(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| CliError::Usage(format!("--public-key {}: {error}", file.display())))
}

/// The document in the cluster's ConfigMap.
fn read_cluster(namespace: &str) -> Result<String, CliError> {
    let place = format!("the ConfigMap {namespace}/{PUBLIC_KEY_CONFIGMAP}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start", &error))?;
    let found = runtime.block_on(async {
        let maps = Api::<ConfigMap>::namespaced(connect::client().await?, namespace);
        maps.get_opt(PUBLIC_KEY_CONFIGMAP)
            .await
            .map_err(|error| CliError::from_kube(&format!("cannot read {place}"), &error))
    })?;
    found.and_then(|map| map.data).and_then(|mut data| data.remove(PUBLIC_KEY_DATA_KEY)).ok_or_else(|| {
        CliError::Failed(format!(
            "{place} holds no public key: has the operator ever run there? (--operator-namespace names its namespace, \
             --public-key a file)"
        ))
    })
}

/// The public key of the document, if it is the one that was pinned.
fn check_key(document: &str, pin: Option<&str>) -> Result<PublishedKey, CliError> {
    let published =
        PublishedKey::parse(document).map_err(|error| CliError::failed("cannot use the public key", &error))?;
    match pin {
        Some(pin) if pin != published.key.fingerprint() => Err(CliError::Failed(format!(
            "the public key has the SHA-256 {}, which is not the one that --fingerprint names",
            published.key.fingerprint()
        ))),
        _ => Ok(published),
    }
}

/// Asks on the terminal, without echo; the line break that ends the line is not part of the value.
fn ask() -> Result<Plaintext, CliError> {
    let line = rpassword::prompt_password("Value (not shown): ")
        .map_err(|error| CliError::failed("cannot read the value", &error))?;
    value(Zeroizing::new(line.into_bytes()))
}

/// Reads the value byte for byte.
fn read_value(input: impl Read) -> Result<Plaintext, CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(VALUE_BYTES_MAX + 1));
    input
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failed("cannot read the value from standard input", &error))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(broken_rule(ValueError::TooLong));
    }
    value(bytes)
}

fn value(bytes: Zeroizing<Vec<u8>>) -> Result<Plaintext, CliError> {
    Plaintext::new(bytes).map_err(broken_rule)
}

fn broken_rule(rule: ValueError) -> CliError {
    CliError::Usage(format!("the value {rule}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::crypto::mss1::SealingKey;

    fn args(scope: SealScope, namespace: Option<&str>, name: Option<&str>) -> SealArgs {
        SealArgs {
            name: name.map(ToOwned::to_owned),
            namespace: namespace.map(ToOwned::to_owned),
            scope,
            public_key: None,
            fingerprint: None,
            operator_namespace: "managed-secrets-system".to_owned(),
        }
    }

    #[test]
    fn a_scope_takes_exactly_what_it_binds_to() {
        use SealScope::{Cluster, Namespace, Strict};
        let given = [(None, None), (Some("prod"), None), (None, Some("db")), (Some("prod"), Some("db"))];
        for (kind, fitting) in [(Strict, 3), (Namespace, 1), (Cluster, 0)] {
            for (case, (namespace, name)) in given.into_iter().enumerate() {
                assert_eq!(
                    scope(&args(kind, namespace, name)).is_ok(),
                    case == fitting,
                    "{kind:?} {namespace:?} {name:?}"
                );
            }
        }
    }

    #[test]
    fn the_value_is_read_byte_for_byte() {
        for text in [" a\n", "\u{feff}x", "line\r\n", &"😀".repeat(3500)] {
            assert_eq!(read_value(text.as_bytes()).unwrap().as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_value_out_of_its_rule_is_refused_without_its_length() {
        for (bytes, rule) in [
            (Vec::new(), "must not be empty"),
            (vec![0xff], "must be valid UTF-8"),
            (vec![b'a'; 3501], "must have at most 3500 characters"),
            // Cut off in the middle of a character, it must not be called invalid UTF-8.
            ("ä".repeat(7001).into_bytes(), "must have at most 3500 characters"),
        ] {
            let error = read_value(bytes.as_slice()).expect_err("refused");
            assert_eq!(error.to_string(), format!("the value {rule}"));
            assert_eq!(error.exit(), crate::cli::Exit::Usage);
        }
    }

    #[test]
    fn only_the_pinned_key_is_used() {
        let key = SealingKey::new(Zeroizing::new([0x22; 32])).unwrap();
        let document = PublishedKey::new(key.public().clone(), Timestamp::UNIX_EPOCH).to_json().unwrap();
        let pin = "sha256:EFA4292736dc4550e9e73c92b3736fbe48757cc0516d9b5468be59ce270227ad";
        let pin = fingerprint(pin).unwrap();
        assert!(check_key(&document, Some(&pin)).is_ok());
        assert!(check_key(&document, None).is_ok());
        assert!(check_key(&document, Some(&"0".repeat(64))).is_err());
        for text in ["", "efa4", &"g".repeat(64), &"0".repeat(65)] {
            assert!(fingerprint(text).is_err());
        }
    }
}
