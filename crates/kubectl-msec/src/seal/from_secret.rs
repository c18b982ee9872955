//! `kubectl msec seal --from-secret`: turns plain manifests of Secrets into ManagedSecrets with sealed values.
//!
//! One ManagedSecret delivers one key of one Secret. A Secret with one key becomes a ManagedSecret that delivers the
//! same key of the same Secret, and pods keep working. So does a Secret of the type `kubernetes.io/tls`: its certificates are
//! public, and become the template. With several keys, each key gets its own ManagedSecret and its own Secret, and pods must
//! mount those. Labels and annotations are not carried over: what a GitOps tool tracks by them is the Secret.
//!
//! Names are derived, and `--names` overrides them. Two values never get one name: applied, the last one would win.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use managed_secrets_api::keys::{
    DEFAULT_TARGET_KEY, DEFAULT_TARGET_TYPE, GROUP, KIND, TLS_CERTIFICATE, TLS_PRIVATE_KEY, TYPE_TLS, VERSION,
};
use managed_secrets_api::{template, validate};
use managed_secrets_cli::seal::sealed;
use managed_secrets_cli::{CliError, SealScope, say, value, yaml};
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::Handling;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::super::session::ClusterArgs;
use super::names::{Names, Taken};
use super::{SealArgs, key, refusal};
use crate::manifest::files::{Source, is_standard_input};
use crate::manifest::{Kind, Object, Problem, Rule, Stream};

/// A ManagedSecret without its value, and the value.
struct Draft {
    object: Value,
    value: Plaintext,
    /// `namespace/name` of the Secret, for notes.
    from: String,
    /// Its key, for notes.
    key: String,
    /// Whether the Secret has other keys.
    one_of_several: bool,
}

/// Prints the Secrets of a file as ManagedSecrets.
pub(super) fn convert(cluster: &ClusterArgs, args: &SealArgs, file: &Path) -> Result<(), CliError> {
    let source = Source::read((!is_standard_input(file)).then_some(file), true)?;
    let stream = source.stream().map_err(|problem| refusal(&source.name, &[problem]))?;
    let mut names = args.names.as_deref().map(Names::read).transpose()?.unwrap_or_default();
    let namespace = cluster.namespace();
    // A Secret inside another object is not converted, and must not be taken for converted.
    let (mut drafts, mut problems, mut taken) = (Vec::new(), stream.nested().secrets, Taken::default());
    for object in stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret) {
        taken.claim(&object.json, namespace, &format!("ManagedSecret {}", object.called(namespace)));
    }
    for object in stream.objects.iter().filter(|object| object.kind == Kind::Secret) {
        match drafts_of(&stream, object, namespace, args, &mut names) {
            Ok(more) => {
                let clash = more.iter().find_map(|draft| taken.claim(&draft.object, None, &by(&stream, object, draft)));
                problems.extend(clash.map(|clash| stream.problem(object, Rule::DuplicateName, "data", &clash)));
                drafts.extend(more);
            }
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(refusal(&source.name, &problems));
    }
    names.all_used()?;
    if drafts.is_empty() {
        return Err(CliError::Usage(format!("{}: no Secret with data found", source.name)));
    }
    let key = key(cluster, args)?;
    let mut objects = Vec::new();
    for draft in drafts {
        let (from, mut object) = (draft.from, draft.object);
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default().to_owned();
        let (namespace, scoped) = (text("/metadata/namespace"), args.scope == SealScope::Strict);
        let namespace = namespace.filter(|_| args.scope != SealScope::Cluster);
        let scope = args.scope.of(namespace, scoped.then_some(name.as_str()))?;
        object["spec"]["value"] = Value::from(sealed(&key, &scope, Handling::Deliverable, &draft.value)?);
        value::remark(&format!("{from}, key {}: the value", draft.key), &draft.value);
        if draft.one_of_several {
            say::tell(format_args!(
                "note: {from} has several keys: pods that mount it must also mount the Secret {name}"
            ));
        } else if !args.adopt {
            say::tell(format_args!(
                "note: {from}: if this Secret exists on the cluster, delete it first, or take it over with --adopt"
            ));
        }
        objects.push(object);
    }
    say::print_document(&yaml::stream(&objects)?)
}

/// What a draft is made of, for people who look for it in a long file.
fn by(stream: &Stream<'_>, secret: &Object, draft: &Draft) -> String {
    format!("{}, key {} (line {})", draft.from, draft.key, stream.place(secret, "").line)
}

/// One ManagedSecret for each key of a Secret, or what is wrong.
fn drafts_of(
    stream: &Stream<'_>,
    secret: &Object,
    namespace: Option<&str>,
    args: &SealArgs,
    names: &mut Names,
) -> Result<Vec<Draft>, Vec<Problem>> {
    let mut problems = secret.problems.clone();
    let problem = |field: &str, message: String| stream.problem(secret, Rule::Field, field, &message);
    let namespace = secret.namespace().or(namespace);
    let from = format!("Secret {}", secret.called(namespace));
    let Some(name) = secret.name() else {
        problems.push(problem("metadata.name", "must be given".to_owned()));
        return Err(problems);
    };
    if namespace.is_none() && args.scope != SealScope::Cluster {
        let text = "must be given, here or with -n: a value is sealed for one namespace";
        problems.push(problem("metadata.namespace", text.to_owned()));
    }
    let type_ = secret.json.get("type").and_then(Value::as_str).unwrap_or(DEFAULT_TARGET_TYPE);
    let has_private_key = type_ == TYPE_TLS && data(secret).any(|(_, key, _)| key == TLS_PRIVATE_KEY);
    let (mut values, mut texts) = (BTreeMap::new(), Map::new());
    for (field, key, value) in data(secret) {
        if has_private_key && CERTIFICATES.contains(&key.as_str()) {
            match value.and_then(|bytes| certificates(&bytes)) {
                Ok(text) => drop(texts.insert(key.clone(), json!(template::literal(&text)))),
                Err(rule) => problems.push(problem(&format!("{field}.{key}"), format!("{rule} ({from}, key {key})"))),
            }
            continue;
        }
        let value = value.and_then(|bytes| Plaintext::new(bytes).map_err(|rule| rule.to_string()));
        match value {
            Ok(value) => drop(values.insert(key, value)),
            Err(rule) => problems.push(problem(&format!("{field}.{key}"), format!("{rule} ({from}, key {key})"))),
        }
    }
    let several = values.len() > 1;
    if several && args.adopt {
        let text =
            format!("must have one key to be taken over with --adopt: a ManagedSecret delivers one key ({from})");
        problems.push(problem("data", text));
    }
    if args.adopt && secret.json.get("immutable").and_then(Value::as_bool) == Some(true) {
        problems.push(problem("immutable", format!("must not be true to be taken over with --adopt ({from})")));
    }
    let mut drafts = Vec::new();
    for (key, value) in values {
        let given = names.of(namespace, name, key);
        let derived = if several { object_name(name, key) } else { name.to_owned() };
        let called = given.as_ref().and_then(|given| given.object.clone()).unwrap_or(derived);
        let secret_name = given.map_or_else(|| secret_name(&called), |given| given.secret);
        // The only key is delivered where it is now; each of several to a Secret of its own.
        let target = (!several && called != name).then_some(name);
        let object = object(&called, &secret_name, namespace, &target_of(target, key, type_, &texts, args.adopt));
        let mut tried = object.clone();
        // The value is no part of it yet.
        tried["spec"]["generate"] = json!({});
        for violation in validate(&tried) {
            let way_out =
                if NAMES.contains(&violation.path.as_str()) { "; give it another name with --names" } else { "" };
            let rule = format!("`{}` {} ({from}, key {key}){way_out}", violation.path, violation.message);
            let field = if violation.path == "spec.target.type" { "type" } else { "data" };
            problems.push(problem(field, rule));
        }
        drafts.push(Draft { object, value, from: from.clone(), key: key.clone(), one_of_several: several });
    }
    if problems.is_empty() { Ok(drafts) } else { Err(problems) }
}

type Bytes = Result<Zeroizing<Vec<u8>>, String>;

/// The data of a Secret: of a key in both, `stringData` is what the API server takes.
fn data(secret: &Object) -> impl Iterator<Item = (&'static str, &String, Bytes)> {
    let fields = |field: &'static str| {
        let map = secret.json.get(field).and_then(Value::as_object);
        map.into_iter().flatten().map(move |(key, value)| (field, key, value))
    };
    let no_text = || "must be a quoted string".to_owned();
    let text =
        move |value: &Value| value.as_str().map(|text| Zeroizing::new(text.as_bytes().to_vec())).ok_or_else(no_text);
    let encoded = move |value: &Value| {
        // As Go's decoder, which passes over line breaks.
        let text = Zeroizing::new(value.as_str().ok_or_else(no_text)?.replace(['\r', '\n'], ""));
        BASE64_STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| "must be base64".to_owned())
    };
    let plain = move |key: &str| secret.json.get("stringData").is_some_and(|map| map.get(key).is_some());
    fields("stringData").map(move |(field, key, value)| (field, key, text(value))).chain(
        fields("data")
            .filter(move |(_, key, _)| !plain(key))
            .map(move |(field, key, value)| (field, key, encoded(value))),
    )
}

/// Keys of a Secret of the type `kubernetes.io/tls` that are not secret.
const CERTIFICATES: [&str; 2] = [TLS_CERTIFICATE, "ca.crt"];

/// The labels of PEM blocks that are not secret (RFC 7468, section 5.1, and what openssl writes and reads besides).
const PUBLIC_BLOCKS: [&str; 3] = [" CERTIFICATE-----", " X509 CERTIFICATE-----", " TRUSTED CERTIFICATE-----"];

/// A text of certificates. It goes into the manifest as it is, and the API server accepts any text there: also a private key
/// beside its certificate, as some servers want it.
fn certificates(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "must be valid UTF-8".to_owned())?;
    let mut blocks = text.split("-----BEGIN").skip(1).peekable();
    let has_blocks = blocks.peek().is_some();
    if has_blocks && blocks.all(|block| PUBLIC_BLOCKS.iter().any(|label| block.starts_with(label))) {
        Ok(text.to_owned())
    } else {
        Err("must be certificates in PEM and nothing else, because the manifest shows it as it is".to_owned())
    }
}

/// Fields whose rules a derived name can break.
const NAMES: [&str; 3] = ["metadata.name", "spec.name", "spec.target.name"];

/// What of `spec.target` differs from its defaults.
fn target_of(name: Option<&str>, key: &str, type_: &str, texts: &Map<String, Value>, adopt: bool) -> Value {
    let mut target = Map::new();
    if !texts.is_empty() {
        target.insert("template".to_owned(), json!(texts));
    }
    let mut set = |field: &str, value: &str| target.insert(field.to_owned(), json!(value));
    if let Some(name) = name {
        set("name", name);
    }
    if key != DEFAULT_TARGET_KEY {
        set("key", key);
    }
    if type_ != DEFAULT_TARGET_TYPE {
        set("type", type_);
    }
    if adopt {
        set("adoption", "IfUnowned");
    }
    Value::Object(target)
}

fn object(name: &str, secret_name: &str, namespace: Option<&str>, target: &Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
        "metadata": {"name": name}, "spec": {"name": secret_name},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if *target != json!({}) {
        object["spec"]["target"] = target.clone();
    }
    object
}

/// `db-password` is called `DB_PASSWORD`.
fn secret_name(object: &str) -> String {
    object.to_uppercase().replace(['-', '.'], "_")
}

/// `SECRET-KEY`, of what an object's name may hold.
fn object_name(secret: &str, key: &str) -> String {
    let key: String = key.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{secret}-{}", key.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_derived() {
        assert_eq!(secret_name("db-password.v2"), "DB_PASSWORD_V2");
        assert_eq!(object_name("db", "DB_PASSWORD"), "db-db-password");
        assert_eq!(object_name("reg", ".dockerconfigjson"), "reg-dockerconfigjson");
    }
}
