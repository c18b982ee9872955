//! The rules of `overlap` and `target.previousKey`.

use serde_json::Value;

use super::{FieldReason, Rule};
use crate::{duration, keys::DEFAULT_TARGET_KEY, limits::OVERLAP_HOURS_MAX};

/// All of them, but the characters of a key.
pub(super) fn rules() -> [Rule; 3] {
    [
        Rule {
            at: "spec.overlap",
            field: "",
            cel: format!(
                "self.matches(r'{}') && duration(self) <= duration('{OVERLAP_HOURS_MAX}h')",
                duration::PATTERN
            ),
            message: format!("must be hours, minutes and seconds as in `24h` or `1h30m`, at most {OVERLAP_HOURS_MAX}h"),
            reason: FieldReason::Invalid,
            holds: |text| {
                let duration = text.as_str().and_then(duration::parse);
                duration.is_some_and(|duration| duration <= duration::hours(OVERLAP_HOURS_MAX))
            },
        },
        Rule {
            at: "spec",
            field: ".history",
            cel: "!has(self.target) || !has(self.target.previousKey) || !has(self.history) || self.history > 0"
                .to_owned(),
            message: "must be at least 1 with `target.previousKey`: without earlier values there is no previous one"
                .to_owned(),
            reason: FieldReason::Invalid,
            holds: |spec| {
                spec.pointer("/target/previousKey").is_none()
                    || spec.get("history").is_none_or(|history| history.as_i64().is_some_and(|history| history > 0))
            },
        },
        Rule {
            at: "spec.target",
            field: ".previousKey",
            cel: format!(
                "!has(self.previousKey) || self.previousKey != (has(self.key) ? self.key : '{DEFAULT_TARGET_KEY}') && \
                 !(has(self.template) && self.previousKey in self.template)"
            ),
            message: "must be another key than `key` and those of `template`".to_owned(),
            reason: FieldReason::Invalid,
            holds: |target| {
                let Some(previous) = target.get("previousKey").and_then(Value::as_str) else { return true };
                let key = target.get("key").and_then(Value::as_str).unwrap_or(DEFAULT_TARGET_KEY);
                previous != key && target.get("template").is_none_or(|template| template.get(previous).is_none())
            },
        },
    ]
}
