//! The rules that CEL checks in the API server and Rust checks everywhere else, each written once.
//!
//! A [`Rule`] holds the CEL text and, beside it, the predicate that means the same. [`super::crd`] puts the texts into
//! the CRD, [`super::validate`] runs the predicates; a corpus of objects sent to a real API server holds the two
//! together. Limits on type, length, number and choice are the schema's own and not repeated here.
//!
//! CEL's `matches` is RE2 without flags: `$` is the end of the text, so a trailing newline is refused.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::keys::{DEFAULT_TARGET_KEY, GROUP, RECORD_PREFIX, TLS_PRIVATE_KEY, TYPE_TLS};
use super::limits::{
    ANNOTATIONS_BYTES_MAX, EXPIRY_WARNING_HOURS_MAX, NAME_SYMBOLS, REVISION_SYMBOLS, ROTATE_EVERY_HOURS_MAX,
    ROTATE_EVERY_HOURS_MIN, SECRET_NAME_MAX,
};
use super::validate::FieldReason;
use super::{duration, expiry};

mod copies;
mod overlap;
pub(super) mod sealed;
mod template;
pub(super) mod text;

/// One rule.
pub struct Rule {
    /// The field it sits on, as a dotted path from the object; empty for the object itself. A last part `*` stands for each
    /// entry of a map.
    pub at: &'static str,
    /// The field that a violation points to, relative to `at` and with a leading dot; empty for `at` itself.
    pub field: &'static str,
    /// The rule in CEL, where `self` is the field at `at`.
    pub cel: String,
    /// What must hold, for users.
    pub message: String,
    /// The reason of a violation.
    pub reason: FieldReason,
    /// Whether the field at `at` obeys. The value has the shape that the schema asks for, and no nulls.
    pub holds: fn(&Value) -> bool,
}

/// The last part of [`Rule::at`] for a rule on each entry of a map.
pub(super) const EACH: &str = "*";

/// Every rule, those of outer fields first.
pub static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = object_rules();
    rules.extend(spec_rules());
    rules.extend(generate_rules());
    rules.extend(expiry_rules());
    rules.extend(overlap::rules());
    rules.extend(secret_name_rules("spec.valueFrom.secretKeyRef.name"));
    rules.push(secret_key_rule("spec.valueFrom.secretKeyRef.key"));
    rules.extend(secret_name_rules("spec.target.name"));
    rules.push(secret_key_rule("spec.target.key"));
    rules.push(secret_key_rule("spec.target.previousKey"));
    rules.extend(target_type_rules());
    rules.push(Rule {
        at: "spec.target.restart",
        field: "",
        cel: format!("self.all(workload, workload.name.matches(r'^{}$'))", text::DNS_SUBDOMAIN),
        message:
            "must name workloads: lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of \
                  each part"
                .to_owned(),
        reason: FieldReason::Invalid,
        holds: |workloads| {
            let names = workloads.as_array().into_iter().flatten().map(|workload| workload["name"].as_str());
            names.into_iter().all(|name| name.is_some_and(text::is_dns_subdomain))
        },
    });
    rules.extend(metadata_key_rules("spec.target.labels"));
    rules.push(Rule {
        at: "spec.target.labels",
        field: "",
        cel: format!("self.all(key, self[key].matches(r'{}'))", text::LABEL_VALUE),
        message: "must have values that are empty or consist of letters, digits and `-._`, with a letter or digit at \
                  both ends"
            .to_owned(),
        reason: FieldReason::Invalid,
        holds: |labels| entries(labels).all(|(_, value)| value.as_str().is_some_and(text::is_label_value)),
    });
    rules.extend(metadata_key_rules("spec.target.annotations"));
    rules.push(Rule {
        at: "spec.target.annotations",
        field: "",
        cel: format!("self.map(key, bytes(key).size() + bytes(self[key]).size()).sum() <= {ANNOTATIONS_BYTES_MAX}"),
        message: format!("must have at most {ANNOTATIONS_BYTES_MAX} bytes of keys and values"),
        reason: FieldReason::Invalid,
        holds: |annotations| {
            let bytes = entries(annotations).map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
            bytes.sum::<usize>() <= ANNOTATIONS_BYTES_MAX
        },
    });
    rules.extend(template::rules());
    rules
});

/// What is wrong with a field that does not obey, where more can be said than the API server can.
pub(super) fn detail(rule: &Rule, field: &Value) -> Option<String> {
    (rule.at == template::TEXT).then(|| template::detail(field))?
}

/// Rules that need `metadata.name`, which CEL sees from the object itself only.
fn object_rules() -> Vec<Rule> {
    // `delivery: None` has no target, so nothing to collide with.
    let undelivered = "(has(self.spec.delivery) && self.spec.delivery == 'None')";
    let named = "has(self.spec.target) && has(self.spec.target.name)";
    vec![
        Rule {
            at: "",
            field: ".spec.valueFrom.secretKeyRef.name",
            cel: format!(
                "{undelivered} || !has(self.spec.valueFrom) || self.spec.valueFrom.secretKeyRef.name != ({named} ? \
                 self.spec.target.name : self.metadata.name)"
            ),
            message: "must not be the object's own target".to_owned(),
            reason: FieldReason::Invalid,
            holds: |object| {
                let source = object.pointer("/spec/valueFrom/secretKeyRef/name");
                let target = object.pointer("/spec/target/name").or_else(|| object.pointer("/metadata/name"));
                !is_delivered(object) || source.is_none() || source != target
            },
        },
        Rule {
            at: "",
            field: ".spec.target.name",
            cel: format!("{undelivered} || ({named}) || !self.metadata.name.startsWith('{RECORD_PREFIX}')"),
            message: format!(
                "must be given when the value is delivered and `metadata.name` begins with `{RECORD_PREFIX}`"
            ),
            reason: FieldReason::Required,
            holds: |object| {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                !is_delivered(object)
                    || object.pointer("/spec/target/name").is_some()
                    || !name.starts_with(RECORD_PREFIX)
            },
        },
    ]
}

fn is_delivered(object: &Value) -> bool {
    object.pointer("/spec/delivery").and_then(Value::as_str) != Some("None")
}

fn spec_rules() -> Vec<Rule> {
    vec![
        Rule {
            at: "spec",
            field: "",
            cel: "[has(self.value), has(self.valueFrom), has(self.generate)].filter(given, given).size() == 1"
                .to_owned(),
            message: "must have exactly one of `value`, `valueFrom` and `generate`".to_owned(),
            reason: FieldReason::Invalid,
            holds: |spec| {
                ["value", "valueFrom", "generate"].iter().filter(|key| spec.get(**key).is_some()).count() == 1
            },
        },
        Rule {
            at: "spec.name",
            field: "",
            // The hyphen stands last, where a character class takes it literally.
            cel: format!("self.matches(r'^[A-Za-z0-9{}-]*$')", NAME_SYMBOLS.replace('-', "")),
            message: "must consist of letters, digits and `_ + = - @ # $`".to_owned(),
            reason: FieldReason::Invalid,
            holds: |name| name.as_str().is_some_and(text::is_secret_friendly_name),
        },
        Rule {
            at: "spec.value",
            field: "",
            cel: sealed::cel("self"),
            message: "must be a sealed value (`mss1.…`): seal the value with `managed-secrets seal --name NAME \
                      --namespace NAMESPACE`, where NAME is the object's metadata.name"
                .to_owned(),
            // "Invalid" would have the server print the value.
            reason: FieldReason::Forbidden,
            holds: |value| value.as_str().is_some_and(sealed::is_well_formed),
        },
    ]
}

fn generate_rules() -> [Rule; 2] {
    [
        Rule {
            at: "spec.generate.rotateEvery",
            field: "",
            cel: format!(
                "self.matches(r'{}') && duration(self) >= duration('{ROTATE_EVERY_HOURS_MIN}h') && duration(self) <= \
                 duration('{ROTATE_EVERY_HOURS_MAX}h')",
                duration::PATTERN
            ),
            message: format!(
                "must be hours, minutes and seconds as in `720h` or `1h30m`, from {ROTATE_EVERY_HOURS_MIN}h to \
                 {ROTATE_EVERY_HOURS_MAX}h"
            ),
            reason: FieldReason::Invalid,
            holds: |text| {
                let bounds = duration::hours(ROTATE_EVERY_HOURS_MIN)..=duration::hours(ROTATE_EVERY_HOURS_MAX);
                text.as_str().and_then(duration::parse).is_some_and(|every| bounds.contains(&every))
            },
        },
        Rule {
            at: "spec.generate.revision",
            field: "",
            // The hyphen stands last, where a character class takes it literally.
            cel: format!("self.matches(r'^[A-Za-z0-9{REVISION_SYMBOLS}]*$')"),
            message: "must consist of letters, digits and `-._:+/`".to_owned(),
            reason: FieldReason::Invalid,
            holds: |revision| {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || REVISION_SYMBOLS.as_bytes().contains(&byte);
                revision.as_str().is_some_and(|revision| revision.bytes().all(fits))
            },
        },
    ]
}

fn expiry_rules() -> [Rule; 2] {
    [
        Rule {
            at: "spec.expires",
            field: "",
            cel: format!("self.matches(r'{}')", expiry::DATE),
            message: "must be a date in UTC from the year 2000 to 2999: `2027-03-01T00:00:00Z`".to_owned(),
            reason: FieldReason::Invalid,
            holds: |date| date.as_str().is_some_and(|date| expiry::date(date).is_some()),
        },
        Rule {
            at: "spec.expiryWarning",
            field: "",
            cel: format!(
                "self.matches(r'{}') && duration(self) <= duration('{EXPIRY_WARNING_HOURS_MAX}h')",
                duration::PATTERN
            ),
            message: format!(
                "must be hours, minutes and seconds as in `720h` or `1h30m`, at most {EXPIRY_WARNING_HOURS_MAX}h"
            ),
            reason: FieldReason::Invalid,
            holds: |text| {
                let duration = text.as_str().and_then(duration::parse);
                duration.is_some_and(|duration| duration <= duration::hours(EXPIRY_WARNING_HOURS_MAX))
            },
        },
    ]
}

/// A Secret that a user may name: any but a backing record.
fn secret_name_rules(at: &'static str) -> [Rule; 2] {
    [
        Rule {
            at,
            field: "",
            cel: format!("self.matches(r'^{}$')", text::DNS_SUBDOMAIN),
            message:
                "must be a Secret's name: lower-case letters, digits, `-` and `.`, with a letter or digit at both \
                      ends of each part"
                    .to_owned(),
            reason: FieldReason::Invalid,
            holds: |name| name.as_str().is_some_and(text::is_dns_subdomain),
        },
        Rule {
            at,
            field: "",
            cel: format!("!self.startsWith('{RECORD_PREFIX}')"),
            message: format!("must not begin with `{RECORD_PREFIX}`: such Secrets are backing records"),
            reason: FieldReason::Invalid,
            holds: |name| name.as_str().is_some_and(|name| !name.starts_with(RECORD_PREFIX)),
        },
    ]
}

fn secret_key_rule(at: &'static str) -> Rule {
    Rule {
        at,
        field: "",
        cel: "self.matches(r'^[-._a-zA-Z0-9]*$') && self != '.' && !self.startsWith('..')".to_owned(),
        message: "must consist of letters, digits and `-._`, and be neither `.` nor begin with `..`".to_owned(),
        reason: FieldReason::Invalid,
        holds: |key| key.as_str().is_some_and(text::is_secret_key),
    }
}

/// Types of Kubernetes' own that may be delivered, and the keys that the API server wants of them.
const BUILT_IN_TYPES: [(&str, &[&str]); 4] = [
    ("kubernetes.io/basic-auth", &["username", "password"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    (TYPE_TLS, &[TLS_PRIVATE_KEY]),
];

/// CEL: what `expression` evaluates to is well-formed sealed text, as [`RULES`] ask of `spec.value`.
#[must_use]
pub fn sealed_text_cel(expression: &str) -> String {
    sealed::cel(expression)
}

/// CEL: the text that `expression` evaluates to is sealed text whose value is kept: it is not to be delivered without
/// the permission to read it.
#[must_use]
pub fn kept_text_cel(expression: &str) -> String {
    sealed::kept_cel(expression)
}

/// CEL: the string that `expression` evaluates to, a manifest in JSON, holds a member `value` that is not sealed.
#[must_use]
pub fn plaintext_in_json_cel(expression: &str) -> String {
    copies::plain_in_json(expression)
}

/// CEL, by name: each is true where the string that `expression` evaluates to holds a copy of a manifest with a plain
/// value, written in one way. They are several because the API server bounds what one may cost.
#[must_use]
pub fn plaintext_copies_cel(expression: &str) -> [(&'static str, String); 6] {
    copies::WAYS.each_ref().map(|way| (way.name, way.cel(expression)))
}

/// Whether a text holds a copy of a manifest with a plain value: what [`plaintext_copies_cel`] finds, and no more.
#[must_use]
pub fn holds_plaintext_copy(text: &str) -> bool {
    copies::WAYS.iter().any(|way| way.is_in(text))
}

/// CEL: the annotation with the key and the text that these expressions evaluate to is a packed copy of a manifest, in
/// which a plain value could not be found.
#[must_use]
pub fn packed_copy_cel(key: &str, text: &str) -> String {
    copies::packed_cel(key, text)
}

/// Whether an annotation is what [`packed_copy_cel`] finds.
#[must_use]
pub fn is_packed_copy(key: &str, text: &str) -> bool {
    copies::is_packed(key, text)
}

/// CEL: a target may have the Secret type that `expression` evaluates to.
#[must_use]
pub fn target_type_cel(expression: &str) -> String {
    let allowed: Vec<_> = BUILT_IN_TYPES.iter().map(|(name, _)| format!("'{name}'")).collect();
    format!(
        r"{expression} in [{}] || !{expression}.matches(r'^(([^/]*\.)?kubernetes\.io|[^/]*\.k8s\.io|helm\.sh|{})(/|$)')",
        allowed.join(", "),
        GROUP.replace('.', r"\.")
    )
}

fn target_type_rules() -> Vec<Rule> {
    let mut rules = vec![Rule {
        at: "spec.target.type",
        field: "",
        cel: target_type_cel("self"),
        message: format!(
            "must be `Opaque`, `kubernetes.io/basic-auth`, `kubernetes.io/ssh-auth`, `kubernetes.io/dockerconfigjson`, \
             `kubernetes.io/tls` or a type outside `kubernetes.io`, `*.kubernetes.io`, `*.k8s.io`, `helm.sh` and `{GROUP}`"
        ),
        reason: FieldReason::Invalid,
        holds: |type_| {
            type_.as_str().is_some_and(|type_| {
                BUILT_IN_TYPES.iter().any(|(name, _)| *name == type_) || !text::is_reserved_type(type_)
            })
        },
    }];
    rules.push(Rule {
        at: "spec.target",
        field: ".key",
        cel: BUILT_IN_TYPES
            .iter()
            .map(|(name, keys)| {
                let keys: Vec<_> = keys.iter().map(|key| format!("'{key}'")).collect();
                format!(
                    "(has(self.type) && self.type == '{name}' ? has(self.key) && self.key in [{}] : true)",
                    keys.join(", ")
                )
            })
            .collect::<Vec<_>>()
            .join(" && "),
        message: "must be one that the type requires: `username` or `password` of `kubernetes.io/basic-auth`, \
                  `ssh-privatekey` of `kubernetes.io/ssh-auth`, `.dockerconfigjson` of \
                  `kubernetes.io/dockerconfigjson`, `tls.key` of `kubernetes.io/tls`"
            .to_owned(),
        reason: FieldReason::Invalid,
        holds: |target| {
            let type_ = target.get("type").and_then(Value::as_str);
            let key = target.get("key").and_then(Value::as_str).unwrap_or(DEFAULT_TARGET_KEY);
            let keys = BUILT_IN_TYPES.iter().find(|(name, _)| Some(*name) == type_).map(|(_, keys)| *keys);
            keys.is_none_or(|keys| keys.contains(&key))
        },
    });
    rules
}

/// Domains that keys of users' labels and annotations must not have: Kubernetes' own, kubectl's, and ours.
const RESERVED_DOMAINS: [&str; 3] = ["kubernetes.io", "kubectl.kubernetes.io", GROUP];

/// A key `value` in a manifest would read as a plaintext value to whatever searches annotations for one.
const RESERVED_KEY: &str = "value";

fn metadata_key_rules(at: &'static str) -> [Rule; 2] {
    [
        Rule {
            at,
            field: "",
            // The expression bounds the part behind the slash, `indexOf` the part before it.
            cel: format!(
                "self.all(key, key.matches(r'^({}/)?{}$') && key.indexOf('/') <= {SECRET_NAME_MAX})",
                text::DNS_SUBDOMAIN,
                text::METADATA_KEY_NAME
            ),
            message: "must have keys of at most 63 letters, digits and `-._`, with a letter or digit at both ends, \
                      after an optional lower-case domain and `/`"
                .to_owned(),
            reason: FieldReason::Invalid,
            holds: |map| entries(map).all(|(key, _)| text::is_metadata_key(key)),
        },
        Rule {
            at,
            field: "",
            cel: {
                let prefixes = RESERVED_DOMAINS.map(|domain| format!("!key.startsWith('{domain}/')"));
                format!("self.all(key, key != '{RESERVED_KEY}' && {})", prefixes.join(" && "))
            },
            message: format!(
                "must not have the key `value`, nor keys that begin with `kubernetes.io/`, \
                              `kubectl.kubernetes.io/` or `{GROUP}/`"
            ),
            reason: FieldReason::Invalid,
            holds: |map| {
                entries(map).all(|(key, _)| {
                    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
                    key != RESERVED_KEY && !RESERVED_DOMAINS.contains(&domain)
                })
            },
        },
    ]
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flat_map(Map::iter)
}
