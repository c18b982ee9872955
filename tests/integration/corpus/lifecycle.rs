//! What a value's life has, two fields at a time: server and validator say the same of each, whatever the other one holds.

use managed_secrets_api::limits::{HISTORY_MAX, REVISION_MAX, SECRET_KEY_MAX};
use serde_json::{Value, json};

use super::{
    Case,
    objects::{set, with},
};

/// A field: where it is, what it may hold, and what it may not, with the path that a refusal names. The first of these
/// breaks a rule, and the second its shape, which keeps the server from looking at the rules.
struct Field {
    pointer: &'static str,
    good: Value,
    bad: [(Value, &'static str); 2],
}

fn fields() -> Vec<Field> {
    let field = |pointer, path, good, bad: [Value; 2]| Field { pointer, good, bad: bad.map(|bad| (bad, path)) };
    let workload = |kind: &str, name: &str| json!([{ "kind": kind, "name": name }]);
    vec![
        field("/spec/history", "spec.history", json!(HISTORY_MAX), [json!(HISTORY_MAX + 1), json!("1")]),
        field("/spec/version", "spec.version", json!(1), [json!(0), json!(true)]),
        field("/spec/overlap", "spec.overlap", json!("1h"), [json!("1d"), json!(1)]),
        field(
            "/spec/target/previousKey",
            "spec.target.previousKey",
            json!("old"),
            [json!("a/b"), json!("k".repeat(SECRET_KEY_MAX + 1))],
        ),
        field(
            "/spec/expires",
            "spec.expires",
            json!("2027-03-01T00:00:00Z"),
            [json!("2027-02-30T00:00:00Z"), json!(7)],
        ),
        field("/spec/expiryWarning", "spec.expiryWarning", json!("0s"), [json!("1w"), json!({})]),
        field("/spec/generate/rotateEvery", "spec.generate.rotateEvery", json!("1h"), [json!("59m"), json!([])]),
        field(
            "/spec/generate/revision",
            "spec.generate.revision",
            json!("2026-11"),
            [json!("a b"), json!("r".repeat(REVISION_MAX + 1))],
        ),
        Field {
            pointer: "/spec/target/restart",
            good: workload("Deployment", "shop"),
            bad: [
                (workload("Deployment", "Shop"), "spec.target.restart"),
                (workload("Job", "shop"), "spec.target.restart[0].kind"),
            ],
        },
    ]
}

/// Each field with each other one: as good or bad as both can be.
pub(super) fn all() -> Vec<Case> {
    let fields = fields();
    let values = |field: &Field| {
        let bad = field.bad.clone().map(|(bad, path)| (bad, Some(path)));
        [vec![(field.good.clone(), None)], bad.to_vec()].concat()
    };
    let mut cases = Vec::new();
    for (at, one) in fields.iter().enumerate() {
        for other in &fields[at + 1..] {
            for (first, wrong) in values(one) {
                for (second, also_wrong) in values(other) {
                    let mut object = with(json!({ "target": {} }));
                    set(&mut object, one.pointer, first.clone());
                    set(&mut object, other.pointer, second.clone());
                    let wrong: Vec<_> = wrong.into_iter().chain(also_wrong).collect();
                    // Of two, the server may look at one only.
                    let wrong = Some(wrong).filter(|wrong| wrong.len() < 2);
                    let what = format!("{} {first} and {} {second}", one.pointer, other.pointer);
                    cases.push(Case { what, object, wrong });
                }
            }
        }
    }
    cases
}
