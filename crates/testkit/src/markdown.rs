//! Just enough of Markdown to hold the documents to what they say: fenced blocks, headings, links, inline code.

use std::{fs, path::PathBuf};

use super::program::root;

/// One fenced block.
#[derive(Debug)]
pub struct Block {
    /// The heading above it.
    pub section: String,
    /// The word behind the fence.
    pub language: String,
    /// What stands between the fences.
    pub text: String,
}

/// One document, taken apart.
#[derive(Debug)]
pub struct Document {
    /// Its path from the project's root.
    pub path: PathBuf,
    /// Its fenced blocks, in order.
    pub blocks: Vec<Block>,
    /// Its headings, without their marks.
    pub headings: Vec<String>,
    /// Everything outside of fenced blocks.
    pub prose: String,
}

impl Document {
    /// Reads a document by its path from the project's root.
    pub fn read(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path))?;
        let mut this = Self { path, blocks: Vec::new(), headings: Vec::new(), prose: String::new() };
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let section = this.headings.last().cloned().unwrap_or_default();
                    open = Some(Block { section, language: language.to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => this.blocks.extend(open.take()),
                (Some(block), None) => block.text.extend([line, "\n"]),
                (None, None) => {
                    let heading = line.trim_start_matches('#');
                    if heading.len() < line.len() && heading.starts_with(' ') {
                        this.headings.push(heading.trim().to_owned());
                    }
                    this.prose.extend([line, "\n"]);
                }
            }
        }
        Ok(this)
    }

    /// What its inline code says, in order.
    pub fn inline_code(&self) -> impl Iterator<Item = &str> {
        self.prose.split('`').skip(1).step_by(2)
    }

    /// Where its links lead.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next())
    }

    /// The anchors of its headings, as GitHub makes them.
    pub fn anchors(&self) -> impl Iterator<Item = String> {
        self.headings.iter().map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
    }
}
