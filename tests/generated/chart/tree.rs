//! A template as a tree: YAML whose parts have conditions.
//!
//! The tree begins as the objects of the default installation. [`Node::overlay`] compares them with the objects of an
//! installation that differs in one option, and puts a condition around each difference. [`Node::combine`] then compares the
//! installations that differ in two options, and adds what both change together. The result renders as one of them,
//! depending on the values of the chart.

use std::fmt;

use serde_json::Value;

/// The element of a list of values in a template, inside `range`.
pub(super) const ITEM: &str = "{{ . }}";
/// The name of an element that is a map. It stands for [`ITEM`] in everything that is repeated.
pub(super) const NAME_OF_ITEM: &str = "{{ .name }}";

/// One choice that a value of the chart makes.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The pipeline that is true if the installation differs from the default one. For a list of values, the list: what
    /// contains [`ITEM`] is repeated for each element.
    pub(super) when: String,
}

impl Choice {
    fn taken(&self) -> Guard {
        Guard::If(self.when.clone())
    }

    fn not_taken(&self) -> Guard {
        self.taken().negated()
    }

    fn clash(&self, at: impl Into<String>) -> Clash {
        Clash { when: self.when.clone(), at: at.into() }
    }
}

/// What decides whether a part is rendered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Guard {
    /// Only if this pipeline is true.
    If(String),
    /// Once for each element of this list.
    Each(String),
}

impl Guard {
    /// The opposite condition. That of a list is that it is empty.
    pub(super) fn negated(&self) -> Self {
        let (Self::If(pipeline) | Self::Each(pipeline)) = self;
        Self::If(match pipeline.strip_prefix("not ") {
            Some(inner) => inner.to_owned(),
            None if pipeline.contains(' ') => format!("not ({pipeline})"),
            None => format!("not {pipeline}"),
        })
    }
}

/// One entry of a map or a list.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// All must hold; the outermost first.
    pub(super) guards: Vec<Guard>,
    /// Whether the default installation has it.
    by_default: bool,
    /// In a map. A template without a key renders entries of its own.
    pub(super) key: Option<String>,
    /// In a list: what tells it apart from the other elements.
    identity: String,
    pub(super) node: Node,
}

impl Part {
    fn of(key: Option<&str>, node: Node) -> Self {
        Self { guards: Vec::new(), by_default: true, key: key.map(ToOwned::to_owned), identity: String::new(), node }
    }

    /// A part that only the chart has.
    pub(super) fn added(guards: Vec<Guard>, key: Option<&str>, node: Node) -> Self {
        Self { guards, by_default: false, ..Self::of(key, node) }
    }

    /// Adds the difference between two installations in one of which this may be absent.
    fn change(&mut self, was: &Value, is: Option<&Value>, choice: &Choice) -> Result<(), Clash> {
        match is {
            Some(is) => return self.node.overlay(was, is, choice),
            None => self.guards.push(choice.not_taken()),
        }
        Ok(())
    }

    /// Keeps what the first choice removes if the second one is taken, too.
    fn keep(&mut self, [removes, keeps]: [&Choice; 2]) -> Result<(), Clash> {
        let absent = removes.not_taken();
        let guard = self.guards.iter_mut().find(|guard| **guard == absent).ok_or_else(|| keeps.clash("a guard"))?;
        let (Guard::If(present) | Guard::Each(present)) = absent;
        *guard = Guard::If(format!("or {} {}", operand(&present), operand(&keeps.when)));
        Ok(())
    }
}

/// A pipeline as an operand of another one.
pub(super) fn operand(pipeline: &str) -> String {
    if pipeline.contains(' ') { format!("({pipeline})") } else { pipeline.to_owned() }
}

/// The same place in four installations: with neither of two choices, with one of them, and with both.
#[derive(Clone, Copy)]
pub(super) struct Four<T> {
    pub(super) neither: T,
    pub(super) first: T,
    pub(super) second: T,
    pub(super) both: T,
}

impl<T: PartialEq> Four<T> {
    /// Whether each choice changes the same with and without the other: then [`Node::overlay`] has added everything.
    fn is_settled(&self) -> bool {
        self.neither == self.first && self.second == self.both || self.neither == self.second && self.first == self.both
    }
}

impl<T> Four<T> {
    fn map<U>(self, of: impl Fn(T) -> U) -> Four<U> {
        Four { neither: of(self.neither), first: of(self.first), second: of(self.second), both: of(self.both) }
    }

    fn into_array(self) -> [T; 4] {
        [self.neither, self.first, self.second, self.both]
    }
}

/// YAML with conditions.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A scalar, and never a text.
    Scalar(Value),
    /// A text, which may contain actions of Helm.
    Text(String),
    /// Entries with keys.
    Map(Vec<Part>),
    /// Elements.
    List(Vec<Part>),
    /// An action that renders a scalar other than a text, such as a number.
    Bare(String),
    /// A pipeline that renders lines of YAML.
    Lines(String),
}

/// Two installations differ in a way that this module cannot express.
#[derive(Debug, PartialEq)]
pub(super) struct Clash {
    when: String,
    at: String,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chart cannot express what \"{}\" changes at {}", self.when, self.at)
    }
}

impl Node {
    /// A tree without conditions.
    pub(super) fn of(value: &Value) -> Self {
        Self::repeated(value, None)
    }

    /// A tree in which an element that contains [`ITEM`] is repeated for each element of `list`.
    fn repeated(value: &Value, list: Option<&str>) -> Self {
        match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| Part::of(Some(key), Self::repeated(value, list))).collect())
            }
            Value::Array(items) => Self::List(items.iter().map(|item| element(item, list)).collect()),
            other => Self::Scalar(other.clone()),
        }
    }

    /// Adds the difference between two installations: `base`, the default one, which this tree was made of, and `other`.
    pub(super) fn overlay(&mut self, base: &Value, other: &Value, choice: &Choice) -> Result<(), Clash> {
        if base == other {
            return Ok(());
        }
        let within = |at: &str, clash: Clash| Clash { at: format!("{at}/{}", clash.at), ..clash };
        match (self, base, other) {
            (Self::Map(parts), Value::Object(base), Value::Object(other)) => {
                for (key, was) in base {
                    let Some(part) = parts.iter_mut().find(|part| part.by_default && part.key.as_ref() == Some(key))
                    else {
                        return Err(choice.clash(key.clone()));
                    };
                    match other.get(key) {
                        Some(is) => part.node.overlay(was, is, choice).map_err(|clash| within(key, clash))?,
                        None => part.guards.push(choice.not_taken()),
                    }
                }
                for (key, is) in other.iter().filter(|(key, _)| !base.contains_key(*key)) {
                    let node = Self::repeated(is, Some(&choice.when));
                    let at = parts.iter().position(|part| part.key.as_ref() > Some(key)).unwrap_or(parts.len());
                    parts.insert(at, Part::added(vec![choice.taken()], Some(key), node));
                }
                Ok(())
            }
            (Self::List(parts), Value::Array(base), Value::Array(other)) => {
                let mut at = 0;
                for (was, is) in aligned(base, other) {
                    // What earlier choices have added comes first.
                    while parts.get(at).is_some_and(|part| !part.by_default) {
                        at += 1;
                    }
                    match (was, is, parts.get_mut(at)) {
                        (Some(was), Some(is), Some(part)) => {
                            part.node.overlay(was, is, choice).map_err(|clash| within(&identity(was), clash))?;
                        }
                        (Some(_), None, Some(part)) => part.guards.push(choice.not_taken()),
                        (None, Some(is), _) => {
                            let mut part = element(is, Some(&choice.when));
                            part.by_default = false;
                            if part.guards.is_empty() {
                                part.guards.push(choice.taken());
                            }
                            parts.insert(at, part);
                        }
                        _ => return Err(choice.clash(at.to_string())),
                    }
                    at += 1;
                }
                Ok(())
            }
            (Self::Text(text), Value::String(base), Value::String(other)) if text == base => {
                *text = inline(base, other, choice);
                Ok(())
            }
            (node @ Self::Scalar(_), base, Value::Number(other)) => {
                *node = Self::Bare(either(&base.to_string(), &other.to_string(), choice));
                Ok(())
            }
            (_, base, _) => Err(choice.clash(base.to_string())),
        }
    }

    /// Adds what two choices change together. Each of them has been overlaid alone.
    pub(super) fn combine(&mut self, of: Four<&Value>, choices: [&Choice; 2]) -> Result<(), Clash> {
        if of.is_settled() {
            return Ok(());
        }
        let clash = |at: &str| {
            let [first, second] = choices.map(|choice| operand(&choice.when));
            Clash { when: format!("and {first} {second}"), at: at.to_owned() }
        };
        let (Self::Map(parts) | Self::List(parts)) = self else { return Err(clash("a scalar")) };
        let names = |value: &Value| -> Vec<String> {
            match value {
                Value::Object(map) => map.keys().cloned().collect(),
                Value::Array(items) => items.iter().map(identity).collect(),
                _ => Vec::new(),
            }
        };
        let mut all: Vec<String> = of.map(names).into_array().concat();
        all.sort();
        all.dedup();
        for name in all {
            let four = of.map(|value| named(value, &name));
            if four.is_settled() {
                continue;
            }
            let by_default = four.neither.is_some();
            let is_it = |part: &&mut Part| {
                part.by_default == by_default && (part.key.as_ref() == Some(&name) || part.identity == name)
            };
            let part = parts.iter_mut().find(is_it).ok_or_else(|| clash(&name))?;
            let [first, second] = choices;
            let done = match four.into_array() {
                [Some(neither), Some(one), Some(other), Some(both)] => {
                    part.node.combine(Four { neither, first: one, second: other, both }, choices)
                }
                // One choice adds it, and the other changes what is added.
                [None, Some(was), None, is] => part.change(was, is, second),
                [None, None, Some(was), is] => part.change(was, is, first),
                // One choice removes it.
                [Some(_), None, _, None] | [Some(_), _, None, None] => Ok(()),
                [Some(_), None, Some(is), Some(both)] if is == both => part.keep([first, second]),
                [Some(_), Some(is), None, Some(both)] if is == both => part.keep([second, first]),
                _ => Err(clash("")),
            };
            done.map_err(|clash| Clash { at: format!("{name}/{}", clash.at), ..clash })?;
        }
        Ok(())
    }

    /// Lets every text appear as it is, also if it looks like an action of Helm.
    pub(super) fn escape(&mut self) {
        match self {
            Self::Text(text) => *text = text.replace("{{", r#"{{ "{{" }}"#),
            Self::Map(parts) | Self::List(parts) => parts.iter_mut().for_each(|part| part.node.escape()),
            _ => {}
        }
    }

    /// Replaces every text that is `old`.
    pub(super) fn replace(&mut self, old: &str, new: &str) {
        match self {
            Self::Text(text) if text == old => new.clone_into(text),
            Self::Map(parts) | Self::List(parts) => parts.iter_mut().for_each(|part| part.node.replace(old, new)),
            _ => {}
        }
    }

    /// The node at a path of keys; in a list, the position.
    pub(super) fn at(&mut self, path: &[&str]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let part = match self {
            Self::Map(parts) => parts.iter_mut().find(|part| part.key.as_deref() == Some(*first)),
            Self::List(parts) => first.parse::<usize>().ok().and_then(|index| parts.get_mut(index)),
            _ => None,
        };
        part?.node.at(rest)
    }

    /// The entries of the map or list at a path.
    pub(super) fn parts(&mut self, path: &[&str]) -> Option<&mut Vec<Part>> {
        match self.at(path)? {
            Self::Map(parts) | Self::List(parts) => Some(parts),
            _ => None,
        }
    }
}

fn element(item: &Value, list: Option<&str>) -> Part {
    let mut part = Part { identity: identity(item), ..Part::of(None, Node::repeated(item, list)) };
    if let Some(list) = list.filter(|_| is_per_item(item)) {
        part.guards.push(Guard::Each(list.to_owned()));
    }
    part
}

/// Whether this contains [`ITEM`], other than in a list of its own.
fn is_per_item(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(ITEM) || text.contains(NAME_OF_ITEM),
        Value::Object(map) => map.values().any(is_per_item),
        _ => false,
    }
}

/// What tells two elements of a list apart: kind, namespace and name of an object, the name of another map, or everything.
/// The names of objects of the cluster end with the operator's namespace in some installations.
fn identity(value: &Value) -> String {
    let name = match (&value["metadata"]["name"], &value["name"]) {
        (Value::String(name), _) => format!("{} {} {name}", value["kind"], value["metadata"]["namespace"]),
        (_, Value::String(name)) => name.clone(),
        _ => value.to_string(),
    };
    name.replace(super::CLUSTER_SUFFIX, "")
}

/// The entry of a map with this key, or the element of a list with this identity.
fn named<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(name),
        Value::Array(items) => items.iter().find(|item| identity(item) == name),
        _ => None,
    }
}

/// The elements of both lists side by side, in the order of both.
fn aligned<'v>(base: &'v [Value], other: &'v [Value]) -> Vec<(Option<&'v Value>, Option<&'v Value>)> {
    let mut pairs = Vec::new();
    let mut left = base.iter().peekable();
    for is in other {
        if left.clone().any(|was| identity(was) == identity(is)) {
            for was in left.by_ref() {
                let same = identity(was) == identity(is);
                pairs.push((Some(was), same.then_some(is)));
                if same {
                    break;
                }
            }
        } else {
            pairs.push((None, Some(is)));
        }
    }
    pairs.extend(left.map(|was| (Some(was), None)));
    pairs
}

/// A text that is `base` or `other`, with the condition around the part in which they differ.
fn inline(base: &str, other: &str, choice: &Choice) -> String {
    let common = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| -> usize {
        a.zip(b).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
    };
    let (head, was) = base.split_at(common(&mut base.chars(), &mut other.chars()));
    let is = other.get(head.len()..).unwrap_or_default();
    let tail = common(&mut was.chars().rev(), &mut is.chars().rev());
    let (was, tail) = was.split_at(was.len() - tail);
    let is = is.get(..is.len() - tail.len()).unwrap_or_default();
    format!("{head}{}{tail}", either(was, is, choice))
}

/// `is` if the choice is taken, else `was`.
fn either(was: &str, is: &str, choice: &Choice) -> String {
    let when = &choice.when;
    match (was, is, when.strip_prefix("not ")) {
        ("", is, _) if is.contains(ITEM) => format!("{{{{ range {when} }}}}{is}{{{{ end }}}}"),
        ("", is, _) => format!("{{{{ if {when} }}}}{is}{{{{ end }}}}"),
        // A condition is easier to read without "not".
        (was, "", Some(otherwise)) => format!("{{{{ if {otherwise} }}}}{was}{{{{ end }}}}"),
        (was, is, Some(otherwise)) => format!("{{{{ if {otherwise} }}}}{was}{{{{ else }}}}{is}{{{{ end }}}}"),
        (was, is, None) => format!("{{{{ if {when} }}}}{is}{{{{ else }}}}{was}{{{{ end }}}}"),
    }
}
