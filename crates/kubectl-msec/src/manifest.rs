//! Manifests in Git: a stream of YAML or JSON documents, read so that it can be written back.
//!
//! ```text
//! text ─▶ tree (nodes, and where they stand) ─▶ objects: ManagedSecrets and Secrets, as JSON, with their problems
//!                    │                                     │ what spec.value holds
//!                    └────────────▶ edit ◀─────────────────┘ other text for some scalars; no other byte changes
//! ```
//!
//! Pure: [`files`] alone touches the disk. Nothing is guessed: where the text of a value is also something else's (an
//! anchor, an alias, a merge key, a template), or is no text (an unquoted number), that is a [`Problem`] with its
//! place, which says what to write instead and never what was written. Work is bounded by the length of the text, and
//! what aliases repeat by [`ALIASED_MAX`].

pub(crate) mod edit;
pub(crate) mod files;
mod nested;
pub(crate) mod problem;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
mod tree;
mod unread;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::ScalarStyle;
use managed_secrets_api::keys::{GROUP, KIND, VERSION};
use managed_secrets_api::limits::SEALED_PREFIX;
use managed_secrets_api::rules;
use managed_secrets_api::types::Delivery;
use managed_secrets_cli::yaml::{characters, scalar};
use managed_secrets_crypto::mss1::Sealed;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use self::edit::Unproven;
pub(crate) use self::nested::Nested;
pub(crate) use self::problem::{Problem, Rule};
pub(crate) use self::tree::NodeId;
use self::tree::{Place, Shape, Tag, Tree};

/// Limit on the nodes that aliases repeat in the objects of one stream: no real manifest comes near, and a few lines can
/// mean billions.
const ALIASED_MAX: usize = 10_000;
/// Limit on the reported annotations of one object.
const COPIES_MAX: usize = 10;
/// Limit on the nesting of an object: only aliases can reach it, for the parser stops before.
const DEPTH_MAX: usize = 600;

/// What a stream holds.
pub(crate) struct Stream<'t> {
    text: &'t str,
    tree: Tree<'t>,
    /// The ManagedSecrets and Secrets, in order, those of lists among them.
    pub(crate) objects: Vec<Object>,
}

/// One object.
pub(crate) struct Object {
    /// What it is.
    pub(crate) kind: Kind,
    /// The object, as kubectl would send it.
    pub(crate) json: Value,
    /// What kept it from being read for what it means.
    pub(crate) problems: Vec<Problem>,
    root: NodeId,
    /// Whether it is written somewhere else, and repeated here.
    aliased: bool,
}

/// What an object is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A ManagedSecret, or meant as one: it has the kind or the API group. If it has only one of them, that is a
    /// problem of the object.
    ManagedSecret,
    /// Kubernetes' own.
    Secret,
}

/// What `spec.value` holds.
pub(crate) enum Held<'s> {
    /// No value.
    Nothing,
    /// Sealed text.
    Sealed {
        /// The text.
        text: &'s str,
        /// What it tells without a key.
        sealed: Sealed,
        /// Where to put another; none where the text is another field's, too.
        node: Option<NodeId>,
    },
    /// Anything else: a plaintext value.
    Plain {
        /// The value.
        text: &'s str,
        /// Where to put it sealed.
        node: NodeId,
    },
}

impl<'t> Stream<'t> {
    /// Reads a stream.
    pub(crate) fn read(text: &'t str) -> Result<Self, Problem> {
        let problem =
            |place, rule, message: &str| Problem { place, rule, field: String::new(), message: message.to_owned() };
        // What kubectl reads differently is refused before anything is looked for: it decides where comments and
        // documents end, and so what objects there are.
        if let Some((at, message)) = characters::first_odd(text) {
            return Err(problem(Place::of(text, at), Rule::Ambiguous, &message));
        }
        if let Some((at, message)) = characters::odd_line_end(text) {
            return Err(problem(Place::of(text, at), Rule::Ambiguous, message));
        }
        if let Some(at) = characters::odd_separator(text) {
            return Err(problem(
                Place::of(text, at),
                Rule::Ambiguous,
                "must have `---` alone on its line, or before a comment",
            ));
        }
        if let Some((at, message)) = characters::odd_marker(text) {
            return Err(problem(Place::of(text, at), Rule::Ambiguous, message));
        }
        let tree = Tree::parse(text).map_err(|error| {
            let (mut rule, mut message) = (Rule::Syntax, format!("invalid YAML: {}", error.message));
            if text.contains("{{") {
                rule = Rule::Template;
                message.push_str("; a template must be rendered first");
            }
            Problem { place: error.place, rule, field: String::new(), message }
        })?;
        let (parts, mut last) = (characters::parts(text), None);
        // In JSON, kubectl reads every scalar that YAML 1.2 reads.
        let yaml = (!characters::is_json(text)).then_some(text);
        let mut reader = Reader { tree: &tree, yaml, aliased: 0, found: Vec::new(), ambiguous: None };
        for document in tree.documents() {
            let node = tree.node(*document);
            let part = parts.get(node.place.line.saturating_sub(1));
            // Of two documents that no line of `---` parts, kubectl reads the first.
            if !node.is_empty() && last.replace(part) == Some(part) {
                return Err(problem(
                    node.place,
                    Rule::Ambiguous,
                    "must begin after a line of `---`: kubectl does not see it",
                ));
            }
            reader.look(*document, None, false, 0);
        }
        match reader.ambiguous {
            Some((place, message)) => Err(problem(place, Rule::Ambiguous, message)),
            None => Ok(Self { text, objects: reader.found, tree }),
        }
    }

    /// The text with other scalars at these nodes; no other byte changes.
    pub(crate) fn with(&self, replaced: &HashMap<NodeId, String>) -> Result<String, Unproven> {
        edit::replaced(self.text, &self.tree, replaced)
    }

    /// What the object's `spec.value` holds.
    pub(crate) fn held(&self, object: &Object) -> Result<Held<'_>, Problem> {
        let Some((spec, value, aliased)) = self.value_of(object) else { return Ok(Held::Nothing) };
        self.held_at(spec, value, aliased)
    }

    /// Finds manifests that the commands do not read as objects: inside other objects, and inside texts.
    pub(crate) fn nested(&self) -> Nested {
        nested::find(self)
    }

    /// What a `value` in a `spec` holds; `aliased` says whether the spec is written somewhere else.
    fn held_at(&self, spec: NodeId, value: NodeId, aliased: bool) -> Result<Held<'_>, Problem> {
        let problem = |rule, message: &str| Problem {
            place: self.tree.node(value).place,
            rule,
            field: VALUE.to_owned(),
            message: message.to_owned(),
        };
        let (Some(node), by_alias) = self.tree.resolve(value) else {
            return Err(problem(Rule::Alias, "must be in quotes: unquoted, a text that begins with `*` is an alias"));
        };
        let found = self.tree.node(node);
        let Shape::Scalar(text, style) = &found.shape else {
            let template = self.text.get(found.bytes.start..).is_some_and(|rest| rest.starts_with("{{"));
            return Err(if template { problem(Rule::Template, TEMPLATE) } else { problem(Rule::NoText, NO_TEXT) });
        };
        match found.tag {
            Tag::Other => return Err(problem(Rule::NoText, "must be a quoted string, without a tag")),
            Tag::Absent if *style == ScalarStyle::Plain && scalar::is_null(text) => return Ok(Held::Nothing),
            Tag::Absent if *style == ScalarStyle::Plain && scalar::meaning(text).is_some() => {
                return Err(problem(Rule::NoText, NO_TEXT));
            }
            Tag::Absent | Tag::Text => {}
        }
        let shared = aliased || by_alias || found.anchored || self.tree.node(spec).anchored;
        if text.starts_with(SEALED_PREFIX) {
            let sealed = Sealed::parse(text).map_err(|error| {
                let trimmed = text.trim_end();
                if trimmed.len() < text.len() && Sealed::parse(trimmed).is_ok() {
                    return problem(
                        Rule::Field,
                        "must not end in a line break: begin the block with `|-`, or write the value in quotes",
                    );
                }
                let again = "seal the value again with `kubectl msec seal --name OBJECT -n NAMESPACE`";
                problem(Rule::Field, &format!("{error}; {again}"))
            })?;
            return Ok(Held::Sealed { text, sealed, node: (!shared).then_some(node) });
        }
        if text.find("{{").is_some_and(|at| text[at..].contains("}}")) {
            return Err(problem(Rule::Template, TEMPLATE));
        }
        if shared {
            return Err(problem(
                Rule::Alias,
                "must be written here, without an anchor or an alias: a sealed value fits one object",
            ));
        }
        Ok(Held::Plain { text, node })
    }

    /// Nodes of `spec` and `spec.value`; whether they are written elsewhere.
    fn value_of(&self, object: &Object) -> Option<(NodeId, NodeId, bool)> {
        let (_, spec) = self.tree.entry(object.root, "spec")?;
        let (spec, spec_aliased) = self.tree.resolve(spec);
        let (_, value) = self.tree.entry(spec?, "value")?;
        Some((spec?, value, object.aliased || spec_aliased))
    }

    /// Annotations that the cluster's policy would refuse: copies of a manifest with a plain value, as `kubectl get -o
    /// yaml` shows them, and packed ones.
    pub(crate) fn copies(&self, object: &Object) -> Vec<Problem> {
        let annotations = object.json.pointer("/metadata/annotations").and_then(Value::as_object);
        annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, text)| Some((key, copy_problem(key, text.as_str()?)?)))
            .take(COPIES_MAX)
            .map(|(key, message)| {
                let field = format!("metadata.annotations.{key}");
                self.problem(object, Rule::PlaintextCopy, &field, message)
            })
            .collect()
    }

    /// A problem of a field of an object.
    pub(crate) fn problem(&self, object: &Object, rule: Rule, field: &str, message: &str) -> Problem {
        let message = message.to_owned();
        Problem { place: self.place(object, field), rule, field: field.to_owned(), message }
    }

    /// The location of a field, or of the nearest parent that exists.
    pub(crate) fn place(&self, object: &Object, field: &str) -> Place {
        let (mut at, mut rest, mut place) = (object.root, field, self.tree.node(object.root).place);
        while !rest.is_empty() {
            let (Some(here), _) = self.tree.resolve(at) else { break };
            let named = |(key, value): &(NodeId, NodeId)| {
                let after = behind_key(rest, self.tree.text(*key)?)?;
                Some((*key, *value, after))
            };
            let Some((key, value, after)) = self.tree.entries(here).iter().rev().find_map(named) else { break };
            place = self.tree.node(key).place;
            rest = after;
            at = value;
        }
        place
    }
}

/// What is behind a key at the beginning of a path: `key`, `key.more`, `key[more]`, `[key]` or `[key].more`. Keys may hold
/// dots.
fn behind_key<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    if key.is_empty() {
        return None;
    }
    let rest = match path.strip_prefix('[') {
        Some(path) => path.strip_prefix(key)?.strip_prefix(']')?,
        None => path.strip_prefix(key)?,
    };
    let ends = rest.is_empty() || rest.starts_with(['.', '[']);
    ends.then(|| rest.trim_start_matches('.'))
}

impl Object {
    /// `metadata.name`.
    pub(crate) fn name(&self) -> Option<&str> {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.text("/metadata/namespace")
    }

    /// `spec.delivery`, or its default. What is no delivery is a problem of its own.
    pub(crate) fn delivery(&self) -> Delivery {
        let given = self.json.pointer("/spec/delivery").map(Delivery::deserialize);
        given.and_then(Result::ok).unwrap_or_default()
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.json.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    /// What messages call it: `namespace/name`, or the part that is known.
    pub(crate) fn called(&self, namespace: Option<&str>) -> String {
        let name = self.name().map_or_else(
            || {
                self.text("/metadata/generateName")
                    .map_or_else(|| "(no name)".to_owned(), |prefix| format!("{prefix}*"))
            },
            str::to_owned,
        );
        self.namespace().or(namespace).map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))
    }
}

const VALUE: &str = "spec.value";
const MERGED: &str = "must not be a merge key: write out what it merges";
const TAGGED: &str = "must not have a tag: kubectl may read something else there";
const ITEMS: &str = "must not be a field of this object: kubectl reads an object with items as a list";
const ONCE: &str = "must be given once";
const ALIASED: &str = "must not be an alias, as a key: write it out";
const INFINITE: &str = "must be in quotes: kubectl reads a number there that JSON does not have";
const NO_TEXT: &str = "must be a quoted string";
const TEMPLATE: &str = "must not be a template: seal the value with `kubectl msec seal --name OBJECT -n NAMESPACE`, \
                        and write the sealed text here";

/// What is wrong with an annotation: it is looked at as the cluster's policy does, so that what passes here passes
/// there.
fn copy_problem(key: &str, text: &str) -> Option<&'static str> {
    if rules::holds_plaintext_copy(text) {
        return Some("must not hold a plain value; remove the annotation, which a manifest does not need");
    }
    let packed = "must not hold a packed copy of the manifest, which could hide a plain value; remove the annotation, \
                  which a manifest does not need";
    rules::is_packed_copy(key, text).then_some(packed)
}

/// What an object is that says this of itself. Of the two words that say it, one is enough: what misspells the other
/// is refused by the cluster, but its value is as readable in Git as that of any other.
fn kind_of(kind: Option<&str>, group: Option<&str>) -> Option<Kind> {
    match (kind, group) {
        (Some(KIND), _) | (_, Some(GROUP)) => Some(Kind::ManagedSecret),
        (Some("Secret"), None | Some("")) => Some(Kind::Secret),
        _ => None,
    }
}

/// Finds the objects of a stream, and reads them.
struct Reader<'s, 't> {
    tree: &'s Tree<'t>,
    /// The text; `None` where it is JSON.
    yaml: Option<&'t str>,
    /// Nodes that aliases have repeated so far.
    aliased: usize,
    found: Vec<Object>,
    /// Where it could not be told what an object is, and why.
    ambiguous: Option<(Place, &'static str)>,
}

impl Reader<'_, '_> {
    /// Looks for objects at a document, or at an item of a list; `kind` is what an item is that does not say.
    fn look(&mut self, at: NodeId, kind: Option<Kind>, aliased: bool, depth: usize) {
        let (Some(root), by_alias) = self.tree.resolve(at) else { return };
        let aliased = aliased || by_alias;
        if depth > DEPTH_MAX || self.spend(aliased).is_none() {
            return;
        }
        self.find_ambiguous(root);
        let (says_kind, says_version) = (self.merged_text(root, "kind"), self.merged_text(root, "apiVersion"));
        let group = says_version.as_deref().map(|version| version.split_once('/').map_or("", |(group, _)| group));
        if let Some((says, (key, items))) = says_kind.as_deref().zip(self.tree.entry(root, "items")) {
            let (Some(items), by_alias) = self.tree.resolve(items) else { return };
            // kubectl takes every object with `items` for a list, and sends the items alone (k8s.io/apimachinery,
            // `unstructured.UnstructuredJSONScheme`). An item without a kind is of the list's, without `List`.
            if let Shape::List(children) = &self.tree.node(items).shape {
                if !says.ends_with("List") && kind_of(Some(says), group).is_some() {
                    self.ambiguous.get_or_insert((self.tree.node(key).place, ITEMS));
                }
                self.find_repeated(root);
                let kind = kind_of(Some(says.strip_suffix("List").unwrap_or(says)), group);
                for child in children {
                    self.look(*child, kind, aliased || by_alias, depth + 1);
                }
                return;
            }
        }
        let says_nothing = says_kind.is_none() && says_version.is_none();
        let Some(kind) = (if says_nothing { kind } else { kind_of(says_kind.as_deref(), group) }) else {
            // What is merged into an object can make it another one.
            if let Some((merge, _)) = self.tree.entry(root, MERGE) {
                self.ambiguous.get_or_insert((self.tree.node(merge).place, MERGED));
            }
            return;
        };
        let mut problems = Vec::new();
        if kind == Kind::ManagedSecret && !says_nothing {
            let version = format!("{GROUP}/{VERSION}");
            for (field, says, must) in [("apiVersion", says_version, &*version), ("kind", says_kind, KIND)] {
                if says.as_deref() != Some(must) {
                    let place = self.tree.node(self.tree.entry(root, field).map_or(root, |(key, _)| key)).place;
                    let message = format!("must be {must}");
                    problems.push(Problem { place, rule: Rule::Field, field: field.to_owned(), message });
                }
            }
        }
        let json = self.json(root, "", aliased, 0, &mut problems);
        self.found.push(Object { kind, json, problems, root, aliased });
    }

    /// Finds what hides from here what kubectl takes an object for: a tag at its keys, or at one of the fields that say
    /// it; such a field behind an alias; or such a field given twice, of which kubectl reads the last one.
    fn find_ambiguous(&mut self, root: NodeId) {
        let mut seen = HashSet::new();
        let found = self.tree.entries(root).iter().find_map(|(key, value)| {
            let (named, by_alias) = self.tree.resolve(*key);
            let word = self.tree.text(named?).filter(|word| matches!(*word, "kind" | "apiVersion" | "items"));
            let value = self.tree.resolve(*value).0.filter(|_| word.is_some());
            let tagged =
                [Some(*key), named, value].into_iter().flatten().find(|id| self.tree.node(*id).tag == Tag::Other);
            tagged
                .map(|id| (id, TAGGED))
                .or_else(|| (by_alias && word.is_some()).then_some((*key, ALIASED)))
                .or_else(|| word.filter(|word| !seen.insert(*word)).map(|_| (*key, ONCE)))
        });
        if let Some((id, message)) = found {
            self.ambiguous.get_or_insert((self.tree.node(id).place, message));
        }
    }

    /// Finds a key of a list that is given twice: what the first holds stays in the file, and kubectl does not see it.
    fn find_repeated(&mut self, root: NodeId) {
        let mut seen = HashSet::new();
        let repeated = self.tree.entries(root).iter().find(|(key, _)| !seen.insert(self.tree.text(*key)));
        if let Some((key, _)) = repeated {
            self.ambiguous.get_or_insert((self.tree.node(*key).place, ONCE));
        }
    }

    /// A text of a map, or of one that is merged into it.
    fn merged_text(&self, map: NodeId, key: &str) -> Option<String> {
        if let Some((_, value)) = self.tree.entry(map, key) {
            return self.tree.text(self.tree.resolve(value).0?).map(str::to_owned);
        }
        let (_, merged) = self.tree.entry(map, MERGE)?;
        let (_, value) = self.tree.entry(self.tree.resolve(merged).0?, key)?;
        self.tree.text(self.tree.resolve(value).0?).map(str::to_owned)
    }

    /// Counts a node that an alias repeats; `None` when it was one too many.
    fn spend(&mut self, aliased: bool) -> Option<()> {
        if aliased {
            self.aliased += 1;
        }
        (self.aliased <= ALIASED_MAX).then_some(())
    }

    fn json(&mut self, at: NodeId, path: &str, aliased: bool, depth: usize, problems: &mut Vec<Problem>) -> Value {
        let mut report = |place, rule, message: &str| {
            problems.push(Problem { place, rule, field: path.to_owned(), message: message.to_owned() });
            Value::Null
        };
        let place = self.tree.node(at).place;
        let (Some(id), by_alias) = self.tree.resolve(at) else {
            return report(place, Rule::Alias, "must be in quotes: unquoted, a text that begins with `*` is an alias");
        };
        let aliased = aliased || by_alias;
        if depth > DEPTH_MAX || self.spend(aliased).is_none() {
            // Said once, not for each of what is left.
            return if self.aliased <= ALIASED_MAX + 1 {
                report(place, Rule::Alias, "must not repeat so much by aliases")
            } else {
                Value::Null
            };
        }
        let tree = self.tree;
        let node = tree.node(id);
        match &node.shape {
            Shape::Scalar(text, style) => {
                // What spec.value holds is judged apart.
                if node.tag == Tag::Other && path != VALUE {
                    return report(node.place, Rule::Ambiguous, TAGGED);
                }
                if let Some(message) = self.yaml.and_then(|yaml| unread::scalar(yaml, node)) {
                    return report(node.place, Rule::Ambiguous, message);
                }
                let plain = *style == ScalarStyle::Plain && node.tag == Tag::Absent;
                if plain && path != VALUE && scalar::meaning(text) == Some(Value::Null) && !scalar::is_null(text) {
                    return report(node.place, Rule::Ambiguous, INFINITE);
                }
                plain.then(|| scalar::meaning(text)).flatten().unwrap_or_else(|| Value::from(text.as_ref()))
            }
            Shape::List(items) => {
                Value::Array(items.iter().map(|item| self.json(*item, path, aliased, depth + 1, problems)).collect())
            }
            Shape::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let place = tree.node(*key).place;
                    let Some(name) = tree.text(*key) else {
                        // As `name: {{ … }}` is one. What spec.value holds is judged apart.
                        let template = matches!(tree.node(*key).shape, Shape::Map(_));
                        let (rule, message) = if template {
                            (Rule::Template, "must not be a template: render it first")
                        } else {
                            (Rule::Field, "must have keys that are text")
                        };
                        if path != VALUE {
                            let (field, message) = (path.to_owned(), message.to_owned());
                            problems.push(Problem { place, rule, field, message });
                        }
                        continue;
                    };
                    let field = join(path, name);
                    let broken = if tree.node(*key).tag == Tag::Other {
                        Some((Rule::Ambiguous, TAGGED))
                    } else if tree.is_plain(*key) && scalar::meaning(name).is_some() {
                        Some((Rule::Ambiguous, "must be in quotes: without them, kubectl reads another key"))
                    } else if let Some(message) = self.yaml.and_then(|yaml| unread::key(yaml, tree.node(*key))) {
                        Some((Rule::Ambiguous, message))
                    } else if name == MERGE {
                        Some((Rule::Alias, MERGED))
                    } else if map.contains_key(name) {
                        Some((Rule::DuplicateKey, ONCE))
                    } else {
                        None
                    };
                    let value = self.json(*value, &field, aliased, depth + 1, problems);
                    match broken {
                        Some((rule, message)) => {
                            let (field, message) = (field.into_owned(), message.to_owned());
                            problems.push(Problem { place, rule, field, message });
                        }
                        None => drop(map.insert(name.to_owned(), value)),
                    }
                }
                Value::Object(map)
            }
            // What an alias means is no alias.
            Shape::Alias(_) => Value::Null,
        }
    }
}

const MERGE: &str = "<<";

fn join<'a>(path: &'a str, key: &'a str) -> Cow<'a, str> {
    if path.is_empty() { Cow::Borrowed(key) } else { Cow::Owned(format!("{path}.{key}")) }
}
