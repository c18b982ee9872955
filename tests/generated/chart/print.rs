//! Writes a tree as the text of a template.

use std::fmt::Write as _;

use managed_secrets_cli::{
    CliError,
    yaml::{self, scalar},
};
use serde_json::Value;

use super::tree::{Guard, Node, Part, operand};

/// Objects as a stream of documents.
pub(super) fn documents(parts: &[Part]) -> Result<String, CliError> {
    let mut out = Printer::default();
    out.parts(parts, 0, |out, part| {
        out.text.push_str("---\n");
        out.block(&part.node, 0)
    })?;
    Ok(out.text)
}

#[derive(Default)]
struct Printer {
    text: String,
    /// The open conditions.
    open: Vec<Guard>,
}

impl Printer {
    /// Whether `.` is the element of a list here.
    fn repeats(&self) -> bool {
        self.open.iter().any(|guard| matches!(guard, Guard::Each(_)))
    }

    fn line(&mut self, indent: usize, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", "");
    }

    /// An action as it must be written here: inside `range`, only `$` reaches the values.
    fn action(&self, text: &str) -> String {
        if !self.repeats() {
            return text.to_owned();
        }
        let text = text.replace(" .Values", " $.Values").replace(" .Release", " $.Release");
        text.replace("\" . ", "\" $ ")
    }

    /// Parts, and the conditions around them. Neighbours share a condition; opposites share it by `else`.
    fn parts(
        &mut self,
        parts: &[Part],
        indent: usize,
        print: impl Fn(&mut Self, &Part) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let outer = self.open.len();
        for part in parts {
            let shared =
                self.open.iter().skip(outer).zip(&part.guards).take_while(|(open, guard)| open == guard).count();
            let kept = outer + shared;
            let opposite = part.guards.get(shared).is_some_and(|guard| {
                self.open.len() == kept + 1 && self.open.last().map(Guard::negated).as_ref() == Some(guard)
            });
            if opposite {
                self.open.pop();
                self.line(indent, "{{- else }}");
                self.open.extend(part.guards.get(shared).cloned());
            } else {
                self.close(kept, indent);
            }
            for guard in part.guards.iter().skip(shared + usize::from(opposite)) {
                let line = match guard {
                    Guard::If(pipeline) => format!("{{{{- if {pipeline} }}}}"),
                    Guard::Each(list) => format!("{{{{- range {list} }}}}"),
                };
                let line = self.action(&line);
                self.line(indent, &line);
                self.open.push(guard.clone());
            }
            print(self, part)?;
        }
        self.close(outer, indent);
        Ok(())
    }

    /// The condition under which none of these parts is there; `None` if one always is.
    fn condition_of_none(&self, parts: &[Part]) -> Option<String> {
        let mut conditions = Vec::new();
        for part in parts {
            let guard = part.guards.first()?;
            let (Guard::If(pipeline) | Guard::Each(pipeline)) = guard;
            let has_opposite = parts.iter().any(|other| other.guards.as_slice() == [guard.negated()]);
            if self.open.contains(&Guard::If(pipeline.clone())) || part.guards.len() == 1 && has_opposite {
                return None;
            }
            conditions.push(operand(pipeline));
        }
        Some(match conditions.as_slice() {
            [only] => format!("not {only}"),
            several => format!("not (or {})", several.join(" ")),
        })
    }

    fn close(&mut self, until: usize, indent: usize) {
        while self.open.len() > until {
            self.open.pop();
            self.line(indent, "{{- end }}");
        }
    }

    /// A map or a list, as lines.
    fn block(&mut self, node: &Node, indent: usize) -> Result<(), CliError> {
        match node {
            Node::Map(parts) => self.parts(parts, indent, |out, part| {
                let Some(key) = &part.key else { return out.block(&part.node, indent) };
                // `yaml` quotes a key that needs it.
                let entry = yaml::document(&serde_json::json!({ key: 0 }))?;
                let _ = write!(out.text, "{:indent$}{}", "", entry.trim_end().trim_end_matches('0').trim_end());
                out.value(&part.node, indent, Place::Entry)
            }),
            Node::List(parts) => self.parts(parts, indent, |out, part| {
                if let Node::Lines(_) = part.node {
                    return out.block(&part.node, indent);
                }
                let _ = write!(out.text, "{:indent$}-", "");
                out.value(&part.node, indent, Place::Element)
            }),
            Node::Lines(pipeline) => {
                let line = self.action(&format!("{{{{- {pipeline} | nindent {indent} }}}}"));
                self.line(indent, &line);
                Ok(())
            }
            scalar => self.value(scalar, indent, Place::Entry),
        }
    }

    /// What follows a key or the dash of a list.
    fn value(&mut self, node: &Node, indent: usize, place: Place) -> Result<(), CliError> {
        let deeper = indent + 2;
        match (node, place) {
            (Node::Map(parts), _) if parts.is_empty() => self.text.push_str(" {}\n"),
            (Node::List(parts), _) if parts.is_empty() => self.text.push_str(" []\n"),
            (Node::Map(parts), Place::Element) if parts.first().is_some_and(|part| part.guards.is_empty()) => {
                // The first entry stands beside the dash.
                let mut inner = Self { text: String::new(), open: std::mem::take(&mut self.open) };
                inner.block(node, deeper)?;
                self.open = inner.open;
                let _ = write!(self.text, " {}", inner.text.trim_start());
            }
            // The elements of a list stand below its key, as `kubectl` prints them.
            (Node::List(parts), Place::Entry) => {
                if let Some(empty) = self.condition_of_none(parts) {
                    let _ = write!(self.text, "{{{{ if {empty} }}}} []{{{{ end }}}}");
                }
                self.text.push('\n');
                self.block(node, indent)?;
            }
            (Node::Map(_) | Node::List(_) | Node::Lines(_), _) => {
                self.text.push('\n');
                self.block(node, deeper)?;
            }
            (Node::Bare(action), _) => {
                let action = self.action(action);
                let _ = writeln!(self.text, " {action}");
            }
            (Node::Scalar(value), _) => {
                let _ = write!(self.text, " {}", yaml::document(value)?);
            }
            (Node::Text(text), _) => self.scalar(text, deeper)?,
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, indent: usize) -> Result<(), CliError> {
        let action = self.action(text);
        let whole = text.strip_prefix("{{ ").and_then(|text| text.strip_suffix(" }}")).filter(|it| !it.contains("}}"));
        if whole.is_some() {
            // Quoted, so that a namespace of digits stays a text.
            let quoted = action.trim_end_matches(" }}");
            let _ = writeln!(self.text, " {quoted} | quote }}}}");
        } else if !text.contains("{{") && !text.contains('\n') {
            let _ = write!(self.text, " {}", yaml::document(&Value::from(text))?);
        } else if !text.contains('\n') && is_plain(text) {
            let _ = writeln!(self.text, " {action}");
        } else {
            // A literal block: nothing that a value of the chart contains can end it.
            let end = if text.ends_with('\n') { "|" } else { "|-" };
            let _ = writeln!(self.text, " {end}");
            for line in action.trim_end_matches('\n').lines() {
                self.line(if line.is_empty() { 0 } else { indent }, line);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Place {
    Entry,
    Element,
}

/// Whether YAML reads this as a text without quotes, apart from actions, which render names.
fn is_plain(text: &str) -> bool {
    let mut rest = text;
    let mut literal = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        literal.push_str(before);
        rest = after.split_once("}}").map_or("", |(_, after)| after);
    }
    literal.push_str(rest);
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=".contains(&byte);
    !text.starts_with("{{") && literal.bytes().all(is_safe) && scalar::meaning(&literal).is_none()
}
