//! What an adopted Secret has that is not the operator's to write: labels, annotations, and keys of its data.
//!
//! In: the labels and annotations that a spec asks for, and the Secret as it was read live. Out: [`Theirs`]. Pure. A view
//! holds a bounded number of labels and annotations of others: what it does not show may be there, and is never written.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::view::{SecretView, bounded::OTHERS_MAX, shape::MetadataText};

/// What an adopted Secret had before, of all that the spec asks for: it is neither written nor taken away.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    /// Keys of labels.
    pub(super) labels: BTreeSet<String>,
    /// Keys of annotations.
    pub(super) annotations: BTreeSet<String>,
    /// The first of them that is not known to have the value that the spec asks for.
    pub(super) other: Option<Unlike>,
    /// Keys of data. They are written, but stay when the target moves.
    pub(super) keys: BTreeSet<String>,
}

impl Theirs {
    /// With the labels and annotations of a Secret that was read live, of those that the spec asks for. What our manager
    /// owns of it is ours, whichever other manager owns it too.
    pub(super) fn with_metadata(mut self, wanted: &MetadataText, view: &SecretView) -> Self {
        let labels = Compared {
            kind: "label",
            field: "spec.target.labels",
            live: &view.labels,
            ours: &view.ours.labels,
            left_out: view.left_out.labels,
        };
        labels.compare(&wanted.labels, &mut self.labels, &mut self.other);
        let annotations = Compared {
            kind: "annotation",
            field: "spec.target.annotations",
            live: &view.annotations,
            ours: &view.ours.annotations,
            left_out: view.left_out.annotations,
        };
        annotations.compare(&wanted.annotations, &mut self.annotations, &mut self.other);
        self
    }
}

/// Labels or annotations of a Secret that was read live.
struct Compared<'a> {
    kind: &'static str,
    field: &'static str,
    live: &'a BTreeMap<String, String>,
    ours: &'a BTreeSet<String>,
    left_out: bool,
}

impl Compared<'_> {
    /// Gathers the keys that others have, of those that the spec asks for, and the first that is unlike.
    fn compare(&self, wanted: &BTreeMap<String, String>, theirs: &mut BTreeSet<String>, other: &mut Option<Unlike>) {
        for (key, text) in wanted.iter().filter(|(key, _)| !self.ours.contains(*key)) {
            let unknown = match self.live.get(key) {
                Some(live) if live == text => None,
                Some(_) => Some(false),
                // It may be there with any value: it is not written.
                None if self.left_out => Some(true),
                None => continue,
            };
            if let Some(unknown) = unknown {
                other.get_or_insert_with(|| Unlike { kind: self.kind, key: key.clone(), field: self.field, unknown });
            }
            theirs.insert(key.clone());
        }
    }
}

/// A label or annotation of an adopted Secret that has, or may have, another value than the spec asks for.
#[derive(Debug)]
pub(super) struct Unlike {
    /// `label` or `annotation`.
    kind: &'static str,
    key: String,
    /// Its field of the spec.
    field: &'static str,
    /// The Secret has too many of them to tell.
    unknown: bool,
}

impl Unlike {
    /// The problem, with `remark` on a value that differs, and the way out.
    pub(super) fn problem(&self, remark: &str) -> String {
        let Self { kind, key, field, unknown } = self;
        if *unknown {
            format!(
                "it has more than {OTHERS_MAX} {kind}s that the operator does not manage, too many to look for {kind} \
                 {key}: remove that {kind} from {field}, or remove {kind}s from the Secret"
            )
        } else {
            format!("its {kind} {key} has another value{remark}: remove it from {field}, or from the Secret")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::super::super::view::bounded::LeftOut, *};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_a_view_does_not_show_may_be_there_and_is_not_written() {
        let wanted =
            MetadataText { labels: map(&[("same", "1"), ("unseen", "2")]), annotations: map(&[("note", "3")]) };
        let mut view = SecretView { labels: map(&[("same", "1"), ("other", "x")]), ..SecretView::default() };
        let whole = Theirs::default().with_metadata(&wanted, &view);
        assert!(whole.other.is_none() && whole.labels.iter().eq(["same"]) && whole.annotations.is_empty());

        view.left_out.labels = true;
        let crowded = Theirs::default().with_metadata(&wanted, &view);
        assert!(crowded.labels.iter().eq(["same", "unseen"]) && crowded.annotations.is_empty());
        let problem = crowded.other.unwrap().problem("");
        let expected = "it has more than 256 labels that the operator does not manage, too many to look for label unseen: \
                        remove that label from spec.target.labels, or remove labels from the Secret";
        assert_eq!(problem, expected);

        view.ours.labels.insert("unseen".to_owned());
        let ours = Theirs::default().with_metadata(&wanted, &view);
        assert!(ours.other.is_none() && ours.labels.iter().eq(["same"]), "what the operator owns is always shown");
        view.left_out.annotations = true;
        let problem = Theirs::default().with_metadata(&wanted, &view).other.unwrap().problem("");
        assert!(problem.contains("too many to look for annotation note"), "{problem}");
    }

    #[test]
    fn a_value_that_differs_is_named_before_what_is_not_shown() {
        let wanted = MetadataText { labels: map(&[("a", "1")]), annotations: BTreeMap::new() };
        let view = SecretView {
            labels: map(&[("a", "x")]),
            left_out: LeftOut { labels: true, annotations: false },
            ..SecretView::default()
        };
        let problem = Theirs::default().with_metadata(&wanted, &view).other.unwrap().problem(", so");
        assert_eq!(problem, "its label a has another value, so: remove it from spec.target.labels, or from the Secret");
    }
}
