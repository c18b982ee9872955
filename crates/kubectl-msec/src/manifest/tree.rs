//! A YAML stream as a tree whose nodes know where they stand. JSON is YAML, so it reads JSON, too.
//!
//! What a text means is the parser's business (`granit-parser`); this keeps its events together. Aliases stay aliases:
//! nothing is expanded here, so the tree is never larger than its text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle};

/// A node of one tree.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct NodeId(usize);

impl NodeId {
    /// The number of the node, in the order of the text.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

/// Where something stands, for people: both count from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// The line.
    pub(crate) line: usize,
    /// The column, in characters.
    pub(crate) column: usize,
}

impl Place {
    /// The place of a byte of a text.
    pub(super) fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line..].chars().count() + 1 }
    }
}

/// One node.
#[derive(Clone, PartialEq)]
pub(crate) struct Node<'t> {
    /// What it is.
    pub(crate) shape: Shape<'t>,
    /// Where it begins.
    pub(crate) place: Place,
    /// Whether it has an anchor: what is written here may be meant elsewhere, too.
    pub(crate) anchored: bool,
    /// Its tag.
    pub(crate) tag: Tag,
    /// Whether it is between braces or brackets.
    pub(super) in_flow: bool,
    /// The bytes of it: of a scalar all but properties and, for a block scalar, its header; else its first bytes.
    pub(super) bytes: Range<usize>,
    /// Where what stands before it ends.
    pub(super) before: usize,
}

impl Node<'_> {
    /// Whether nothing is written there.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.shape, Shape::Scalar(text, ScalarStyle::Plain) if text.is_empty())
    }
}

/// What a tag says of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tag {
    /// No tag.
    Absent,
    /// It is text, whatever it looks like: `!!str`, or `!` alone.
    Text,
    /// Anything else.
    Other,
}

/// What a node is.
#[derive(Clone, PartialEq)]
pub(crate) enum Shape<'t> {
    /// Text, as YAML reads it.
    Scalar(Cow<'t, str>, ScalarStyle),
    /// A list.
    List(Vec<NodeId>),
    /// Keys and values.
    Map(Vec<(NodeId, NodeId)>),
    /// Another node; `None` where no node has that anchor.
    Alias(Option<NodeId>),
}

/// Why a text is no YAML. Says nothing of what the text holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SyntaxError {
    /// Where the parser stopped.
    pub(crate) place: Place,
    /// What it says.
    pub(crate) message: String,
}

/// The stream.
pub(crate) struct Tree<'t> {
    nodes: Vec<Node<'t>>,
    documents: Vec<NodeId>,
}

/// What was begun and has not ended.
enum Open {
    List(NodeId),
    /// The key that waits for its value.
    Map(NodeId, Option<NodeId>),
}

impl<'t> Tree<'t> {
    /// Reads a stream.
    pub(crate) fn parse(text: &'t str) -> Result<Self, SyntaxError> {
        let options = granit_parser::options! {
            // An alias of nothing is a node of its own here: the parser's message would quote its name, and a value
            // that begins with `*` and lacks its quotes looks like one.
            emit_unresolved_aliases: true,
            emit_comments: false,
        };
        let mut builder = Builder::default();
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| SyntaxError {
                place: Place { line: error.marker().line(), column: error.marker().col() + 1 },
                message: match error.kind() {
                    // These would quote the text.
                    ErrorKind::UnexpectedCharacter { .. } => "unexpected character".to_owned(),
                    ErrorKind::Custom(_) => "invalid YAML".to_owned(),
                    _ => error.info(),
                },
            })?;
            builder.event(event, &span);
        }
        Ok(Self { nodes: builder.nodes, documents: builder.documents })
    }

    /// The documents, in order.
    pub(crate) fn documents(&self) -> &[NodeId] {
        &self.documents
    }

    /// One node.
    pub(crate) fn node(&self, id: NodeId) -> &Node<'t> {
        // Ids are made by the builder of this tree alone.
        &self.nodes[id.0]
    }

    /// All nodes: in the order of the text, so that those of two texts with the same structure stand side by side.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node<'t>)> {
        self.nodes.iter().enumerate().map(|(at, node)| (NodeId(at), node))
    }

    /// The node that is meant: behind an alias, the one with the anchor; and whether there was one.
    pub(crate) fn resolve(&self, id: NodeId) -> (Option<NodeId>, bool) {
        match &self.node(id).shape {
            // An anchor is never on an alias, so one step is enough.
            Shape::Alias(target) => (*target, true),
            _ => (Some(id), false),
        }
    }

    /// The entries of a map; none where it is no map.
    pub(crate) fn entries(&self, id: NodeId) -> &[(NodeId, NodeId)] {
        match &self.node(id).shape {
            Shape::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Key and value of a map's entry; of repeated keys the last one counts, as for kubectl.
    pub(crate) fn entry(&self, map: NodeId, key: &str) -> Option<(NodeId, NodeId)> {
        self.entries(map).iter().rev().find(|(id, _)| self.text(*id) == Some(key)).copied()
    }

    /// Whether a scalar stands there without quotes and without a tag.
    pub(crate) fn is_plain(&self, id: NodeId) -> bool {
        let node = self.node(id);
        matches!(node.shape, Shape::Scalar(_, ScalarStyle::Plain)) && node.tag == Tag::Absent
    }

    /// The text of a scalar.
    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).shape {
            Shape::Scalar(text, _) => Some(text),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Builder<'t> {
    nodes: Vec<Node<'t>>,
    documents: Vec<NodeId>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    /// End of the last event that had an extent.
    end: usize,
    /// How many open maps and lists have braces or brackets; what is in them has, too.
    flows: usize,
}

impl<'t> Builder<'t> {
    fn event(&mut self, event: Event<'t>, span: &Span) {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map_or(Tag::Absent, |tag| {
                    let text = tag.is_yaml_core_schema_tag("str") || tag.handle().is_empty() && tag.suffix() == "!";
                    if text { Tag::Text } else { Tag::Other }
                });
                self.add(Shape::Scalar(text, style), span, anchor, tag);
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).copied();
                self.add(Shape::Alias(target), span, 0, Tag::Absent);
            }
            Event::UnresolvedAlias(_) => {
                self.add(Shape::Alias(None), span, 0, Tag::Absent);
            }
            Event::SequenceStart(style, anchor, tag) => {
                let tag = if tag.is_some() { Tag::Other } else { Tag::Absent };
                let id = self.add(Shape::List(Vec::new()), span, anchor, tag);
                self.open.push(Open::List(id));
                self.flows += usize::from(style == StructureStyle::Flow);
            }
            Event::MappingStart(style, anchor, tag) => {
                let tag = if tag.is_some() { Tag::Other } else { Tag::Absent };
                let id = self.add(Shape::Map(Vec::new()), span, anchor, tag);
                self.open.push(Open::Map(id, None));
                self.flows += usize::from(style == StructureStyle::Flow);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
                self.flows = self.flows.saturating_sub(1);
            }
            _ => {}
        }
        self.end = self.end.max(span.byte_range().map_or(0, |bytes| bytes.end));
    }

    fn add(&mut self, shape: Shape<'t>, span: &Span, anchor: usize, tag: Tag) -> NodeId {
        let id = NodeId(self.nodes.len());
        let tag_end = span.tag_span().and_then(|tag| tag.byte_range()).map_or(0, |bytes| bytes.end);
        self.nodes.push(Node {
            shape,
            place: Place { line: span.start.line(), column: span.start.col() + 1 },
            anchored: anchor != 0,
            tag,
            in_flow: self.flows > 0,
            bytes: span.byte_range().unwrap_or_default(),
            before: self.end.max(tag_end),
        });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.open.last_mut() {
            None => self.documents.push(id),
            Some(Open::List(list)) => {
                if let Shape::List(items) = &mut self.nodes[list.0].shape {
                    items.push(id);
                }
            }
            Some(Open::Map(map, waiting)) => match waiting.take() {
                None => *waiting = Some(id),
                Some(key) => {
                    if let Shape::Map(entries) = &mut self.nodes[map.0].shape {
                        entries.push((key, id));
                    }
                }
            },
        }
        id
    }
}
