//! Manifests that are no objects of the stream: inside other objects (Crossplane's `Object`, OpenShift's `Template`), and
//! inside texts (a ConfigMap that holds YAML, a patch of kustomize).
//!
//! ```text
//! every map ─▶ kind or group of a ManagedSecret, and a `spec`?  ─yes─▶ each `spec.value`: plain? sealed?
//! every text ─▶ mentions one? ─yes─▶ a stream? ─yes─▶ the same for it
//!                                      └─no─▶ note
//! ```
//!
//! The commands do not replace these values: what the other program does with the manifest is not known here. A plain
//! value is a problem, and sealed text is what belongs there. References to ManagedSecrets, such as owner
//! references, health checks and targets of patches, have no `spec`.

use std::collections::HashMap;

use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_api::limits::SEALED_PREFIX;
use managed_secrets_cli::yaml;
use managed_secrets_crypto::mss1::Sealed;
use serde_json::Value;

use super::tree::{NodeId, Place, Shape, Tree};
use super::{Held, Kind, MERGE, MERGED, Problem, Rule, Stream, kind_of};

/// Limit on streams in texts in streams.
const TEXTS_MAX: usize = 3;

const PLAIN: &str = "must be sealed: seal the value with `kubectl msec seal --name OBJECT -n NAMESPACE`, and write the \
                     sealed text here";
const PLAIN_IN_TEXT: &str = "must not contain a plain value of a ManagedSecret: seal the value with `kubectl msec seal \
                             --name OBJECT -n NAMESPACE`, and write the sealed text there";
const MENTION: &str = "is a text that mentions a ManagedSecret; the command does not look for values in it";
const SECRET: &str = "must not be in a repository: convert the Secret to a ManagedSecret";

/// What was found.
#[derive(Default)]
pub(crate) struct Nested {
    /// ManagedSecrets with plain values, or with values that cannot be read.
    pub(crate) problems: Vec<Problem>,
    /// Secrets with data.
    pub(crate) secrets: Vec<Problem>,
    /// Sealed values.
    pub(crate) sealed: Vec<SealedInside>,
    /// Texts that mention a ManagedSecret and could not be read.
    pub(crate) notes: Vec<Problem>,
    /// Whether there is any ManagedSecret.
    has_any: bool,
}

/// A sealed value that is not an object's own.
pub(crate) struct SealedInside {
    /// Where it is, or the text that contains it.
    pub(crate) place: Place,
    /// Its field, or that of the text.
    pub(crate) field: String,
    /// What it tells without a key.
    pub(crate) sealed: Sealed,
}

impl SealedInside {
    /// A problem of this value.
    pub(crate) fn problem(&self, rule: Rule, message: String) -> Problem {
        Problem { place: self.place, rule, field: self.field.clone(), message }
    }
}

/// Looks at every map and text that is not part of a ManagedSecret of the stream.
pub(super) fn find(stream: &Stream<'_>) -> Nested {
    find_in(stream, 0)
}

fn find_in(stream: &Stream<'_>, texts: usize) -> Nested {
    let objects = stream.objects.iter().map(|object| (object.root, object.kind)).collect();
    let leads_to_spec = leads_to_spec(&stream.tree);
    let mut finder = Finder { stream, objects, leads_to_spec, texts, path: Vec::new(), found: Nested::default() };
    for document in stream.tree.documents() {
        finder.walk(*document);
    }
    finder.found
}

/// For each node, whether a key below it is `spec` or merges another map.
fn leads_to_spec(tree: &Tree<'_>) -> Vec<bool> {
    let nodes: Vec<_> = tree.nodes().collect();
    let mut leads = vec![false; nodes.len()];
    // Parents stand before their children.
    for (at, (_, node)) in nodes.iter().enumerate().rev() {
        leads[at] = match &node.shape {
            Shape::List(items) => items.iter().any(|item| leads[item.index()]),
            Shape::Map(entries) => {
                let is_spec = |key| matches!(tree.text(key), Some("spec" | MERGE));
                entries.iter().any(|(key, value)| is_spec(*key) || leads[value.index()])
            }
            Shape::Scalar(..) | Shape::Alias(_) => false,
        };
    }
    leads
}

/// Whether a map has one of the keys on the way to a value, or merges others, which are not followed.
fn has_value(tree: &Tree<'_>, map: NodeId) -> bool {
    ["spec", "value", MERGE].iter().any(|key| tree.entry(map, key).is_some())
}

struct Finder<'s, 't> {
    stream: &'s Stream<'t>,
    /// The stream's own objects.
    objects: HashMap<NodeId, Kind>,
    leads_to_spec: Vec<bool>,
    /// How many texts this stream is in.
    texts: usize,
    /// The keys on the way to the node.
    path: Vec<NodeId>,
    found: Nested,
}

impl Finder<'_, '_> {
    /// Aliases are not followed: what they mean is looked at where it is written.
    fn walk(&mut self, at: NodeId) {
        let stream = self.stream;
        match &stream.tree.node(at).shape {
            Shape::Scalar(text, _) => self.look_into_text(at, text),
            Shape::List(items) => items.iter().for_each(|item| self.walk(*item)),
            Shape::Map(entries) => {
                let is_nested = match self.objects.get(&at) {
                    Some(Kind::ManagedSecret) => return,
                    Some(Kind::Secret) => false,
                    None => self.look_at_map(at),
                };
                self.look_at_patch(at);
                for (key, value) in entries.iter().filter(|_| !is_nested) {
                    self.path.push(*key);
                    self.walk(*value);
                    self.path.pop();
                }
            }
            Shape::Alias(_) => {}
        }
    }

    /// Whether the map is a ManagedSecret.
    fn look_at_map(&mut self, at: NodeId) -> bool {
        let says = |key, fits: &dyn Fn(&str) -> bool| self.says(at, key, fits);
        let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group) == GROUP;
        let is_ours = says("kind", &|kind| kind == KIND) || says("apiVersion", &group);
        if is_ours && self.leads_to_spec[at.index()] {
            self.found.has_any = true;
            self.look_for_values(at);
            return true;
        }
        let is_secret = says("kind", &|kind| kind_of(Some(kind), None) == Some(Kind::Secret))
            && says("apiVersion", &|version| version == "v1");
        if is_secret && let Some(key) = self.data_of(at) {
            let secret = self.problem(self.stream.tree.node(key).place, Some(key), Rule::PlainSecret, SECRET);
            self.found.secrets.push(secret);
        }
        false
    }

    /// kustomize and Flux name the object of a patch beside its text, which then need not.
    fn look_at_patch(&mut self, at: NodeId) {
        let tree = &self.stream.tree;
        let Some(target) = tree.entry(at, "target").and_then(|(_, target)| tree.resolve(target).0) else { return };
        let is_ours = self.says(target, "kind", &|kind| kind == KIND) || self.says(target, "group", &|it| it == GROUP);
        let Some((key, patch)) = tree.entry(at, "patch").filter(|_| is_ours) else { return };
        let text = tree.text(patch).filter(|text| !text.contains(KIND) && !text.contains(GROUP));
        if text.is_some_and(sets_plain_value) {
            let plain = self.problem(tree.node(patch).place, Some(key), Rule::Nested, PLAIN_IN_TEXT);
            self.found.problems.push(plain);
        }
    }

    /// Whether a map, or one that is merged into it, says so of itself. A key that is given twice says both.
    fn says(&self, map: NodeId, key: &str, fits: &dyn Fn(&str) -> bool) -> bool {
        let tree = &self.stream.tree;
        tree.entries(map).iter().any(|(id, value)| {
            let value = tree.resolve(*value).0;
            match tree.text(*id) {
                Some(text) if text == key => value.and_then(|value| tree.text(value)).is_some_and(fits),
                Some(MERGE) => value
                    .and_then(|merged| tree.entry(merged, key))
                    .and_then(|(_, value)| tree.text(tree.resolve(value).0?))
                    .is_some_and(fits),
                _ => false,
            }
        })
    }

    /// The key of a Secret's data, if there is any.
    fn data_of(&self, secret: NodeId) -> Option<NodeId> {
        let tree = &self.stream.tree;
        let has_data = |value: NodeId| tree.resolve(value).0.is_some_and(|value| !tree.entries(value).is_empty());
        let is_data = |key: NodeId| matches!(tree.text(key), Some("data" | "stringData"));
        tree.entries(secret).iter().find(|(key, value)| is_data(*key) && has_data(*value)).map(|(key, _)| *key)
    }

    /// Looks at each `spec.value` below a node: Kyverno writes `data` above the `spec`.
    fn look_for_values(&mut self, at: NodeId) {
        let stream = self.stream;
        match &stream.tree.node(at).shape {
            Shape::List(items) => items.iter().for_each(|item| self.look_for_values(*item)),
            Shape::Map(entries) => {
                for (key, value) in entries {
                    match stream.tree.text(*key) {
                        Some(MERGE) if self.merges_value(*value) => {
                            let merge = self.problem(stream.tree.node(*key).place, Some(*key), Rule::Alias, MERGED);
                            self.found.problems.push(merge);
                        }
                        Some("spec") => self.look_at_spec(*key, *value),
                        _ => {}
                    }
                    self.path.push(*key);
                    self.look_for_values(*value);
                    self.path.pop();
                }
            }
            Shape::Scalar(..) | Shape::Alias(_) => {}
        }
    }

    /// Whether a map that is merged into a ManagedSecret can bring it a value.
    fn merges_value(&self, merged: NodeId) -> bool {
        let tree = &self.stream.tree;
        let Some(merged) = tree.resolve(merged).0 else { return false };
        match &tree.node(merged).shape {
            Shape::List(maps) => maps.iter().filter_map(|map| tree.resolve(*map).0).any(|map| has_value(tree, map)),
            _ => has_value(tree, merged),
        }
    }

    fn look_at_spec(&mut self, key: NodeId, spec: NodeId) {
        let stream = self.stream;
        let (Some(spec), aliased) = stream.tree.resolve(spec) else { return };
        self.path.push(key);
        // All of them, if the key is given twice: each is in the file.
        for (key, value) in stream.tree.entries(spec).iter().filter(|(key, _)| stream.tree.text(*key) == Some("value"))
        {
            let place = stream.tree.node(*key).place;
            match stream.held_at(spec, *value, aliased) {
                Ok(Held::Nothing) => {}
                Ok(Held::Plain { .. }) => {
                    let plain = self.problem(place, Some(*key), Rule::Nested, PLAIN);
                    self.found.problems.push(plain);
                }
                Ok(Held::Sealed { sealed, .. }) => {
                    let field = self.field(Some(*key));
                    self.found.sealed.push(SealedInside { place, field, sealed });
                }
                // The other program fills it in.
                Err(problem) if problem.rule == Rule::Template => {}
                Err(problem) => {
                    let field = self.field(Some(*key));
                    self.found.problems.push(Problem { field, ..problem });
                }
            }
        }
        self.path.pop();
    }

    fn look_into_text(&mut self, at: NodeId, text: &str) {
        if !text.contains(KIND) && !text.contains(GROUP) {
            return;
        }
        let place = self.stream.tree.node(at).place;
        let read = if self.texts < TEXTS_MAX { Stream::read(text).ok() } else { None };
        let Some(inner) = read else {
            if mentions(text) {
                let note = self.problem(place, None, Rule::Nested, MENTION);
                self.found.notes.push(note);
            }
            return;
        };
        let nested = find_in(&inner, self.texts + 1);
        let objects: Vec<_> = inner.objects.iter().filter(|object| object.kind == Kind::ManagedSecret).collect();
        let held: Vec<_> = objects.iter().map(|object| inner.held(object)).collect();
        let is_plain = |held: &Result<Held<'_>, Problem>| match held {
            Ok(held) => matches!(held, Held::Plain { .. }),
            Err(problem) => problem.rule != Rule::Template,
        };
        if held.iter().any(is_plain) || !nested.problems.is_empty() {
            let plain = self.problem(place, None, Rule::Nested, PLAIN_IN_TEXT);
            self.found.problems.push(plain);
        } else if !nested.notes.is_empty() || mentions(text) && objects.is_empty() && !nested.has_any {
            let note = self.problem(place, None, Rule::Nested, MENTION);
            self.found.notes.push(note);
        }
        self.found.has_any |= nested.has_any || !objects.is_empty();
        let own = held.into_iter().filter_map(|held| match held {
            Ok(Held::Sealed { sealed, .. }) => Some(sealed),
            _ => None,
        });
        let field = self.field(None);
        let sealed = own.chain(nested.sealed.into_iter().map(|inside| inside.sealed));
        self.found.sealed.extend(sealed.map(|sealed| SealedInside { place, field: field.clone(), sealed }));
    }

    /// A problem of the node that is looked at, or of one of its keys.
    fn problem(&self, place: Place, key: Option<NodeId>, rule: Rule, message: &str) -> Problem {
        Problem { place, rule, field: self.field(key), message: message.to_owned() }
    }

    fn field(&self, key: Option<NodeId>) -> String {
        let words = self.path.iter().copied().chain(key).filter_map(|key| self.stream.tree.text(key));
        words.collect::<Vec<_>>().join(".")
    }
}

/// Whether a patch of a ManagedSecret, a merge patch or a JSON patch, sets `spec.value` to something that is not sealed.
fn sets_plain_value(patch: &str) -> bool {
    let is_plain = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.starts_with(SEALED_PREFIX) && !text.contains("{{"),
        _ => true,
    };
    let in_spec = |spec: Option<&Value>| spec.and_then(|spec| spec.get("value")).is_some_and(is_plain);
    let operation = |operation: &Value| match operation.get("path").and_then(Value::as_str) {
        Some("/spec/value") => operation.get("value").is_some_and(is_plain),
        Some("/spec") => in_spec(operation.get("value")),
        _ => false,
    };
    let documents = yaml::read_stream(patch).unwrap_or_default();
    documents.iter().any(|document| match document {
        Value::Array(operations) => operations.iter().any(operation),
        document => in_spec(document.get("spec")),
    })
}

/// Whether a text names the kind behind a word `kind`, as YAML, JSON and configuration languages write it.
fn mentions(text: &str) -> bool {
    let is_quote = |c: char| c == '"' || c == '\'' || c == '\\';
    text.match_indices(KIND).any(|(at, _)| {
        let is_word_end = |c: char| !c.is_alphanumeric() && c != '_' && c != '-';
        let ends = text[at + KIND.len()..].chars().next().is_none_or(is_word_end);
        let before = text[..at].trim_end_matches(|c: char| is_quote(c) || c == ' ');
        let key = before.strip_suffix([':', '=']).map(|key| key.trim_end_matches(|c: char| is_quote(c) || c == ' '));
        ends && key.is_some_and(|key| key.ends_with("kind"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mention_is_told_from_a_comparison_and_a_longer_word() {
        for text in [
            "kind: ManagedSecret",
            "{\"kind\":\"ManagedSecret\"}",
            "kind = \"ManagedSecret\"\n",
            "\"{\\\"kind\\\": \\\"ManagedSecret\\\"}\"",
        ] {
            assert!(mentions(text), "{text}");
        }
        for text in ["kind: ManagedSecretList", "object.kind == 'ManagedSecret'", "ManagedSecret", "a ManagedSecret: x"]
        {
            assert!(!mentions(text), "{text}");
        }
    }
}
