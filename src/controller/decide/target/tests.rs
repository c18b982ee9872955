//! The rules of targets, one row each.

use std::collections::BTreeMap;

use managed_secrets_api::{
    Reason,
    keys::{ANNO_TEMPLATE, LABEL_ROLE, ROLE_TARGET},
    record::Delivered,
};
use serde_json::{Value, json};

use super::{
    super::{
        super::{
            facts::{Content, Held, Known, Refused, Seen},
            plan::{Need, Problem, Read, Values, Verdict},
            record::Authenticity,
            view::{OwnerRef, SecretView},
        },
        testing::{ID, adopted, delivered, facts_of, labelled, own_place, owned_by, plaintext, retained, unmanaged},
    },
    Action, Wanted, decide,
};

/// The value of the record.
const VALUE: &str = "value";

/// What is known of `db` and of the Secret in its target's place.
struct Case {
    spec: Value,
    status: Value,
    recorded: Option<Delivered>,
    place: Known,
    /// What the Secret holds, read in this pass.
    content: Vec<(&'static str, &'static str)>,
    refused: bool,
}

/// No cache shows a Secret there.
fn unseen() -> Case {
    let (spec, status) = (json!({}), json!({}));
    Case { spec, status, recorded: None, place: Known::Unseen, content: Vec::new(), refused: false }
}

/// A live read has found nothing there.
fn absent() -> Case {
    Case { place: Known::Absent, ..unseen() }
}

/// The cache shows this Secret.
fn cached(view: SecretView) -> Case {
    let seen = Seen { view, authenticity: Authenticity::NotARecord, live: false };
    Case { place: Known::Present(Box::new(seen)), ..unseen() }
}

/// A live read has found this Secret, without a key that could be ours.
fn live(view: SecretView) -> Case {
    let seen = Seen { view, authenticity: Authenticity::NotARecord, live: true };
    Case { place: Known::Present(Box::new(seen)), ..unseen() }
}

impl Case {
    /// It holds this text under the key `value`.
    fn holding(self, text: &'static str) -> Self {
        Self { content: vec![("value", text)], ..self }
    }

    /// It holds these texts.
    fn with_data(self, content: &[(&'static str, &'static str)]) -> Self {
        Self { content: content.to_vec(), ..self }
    }

    fn spec(self, spec: Value) -> Self {
        Self { spec, ..self }
    }

    /// With `spec.target.adoption: IfUnowned`.
    fn adopting(self) -> Self {
        self.spec(json!({"target": {"adoption": "IfUnowned"}}))
    }

    /// Status names this Secret as the target.
    fn in_status(self, name: &str, uid: &str) -> Self {
        Self { status: json!({"target": {"name": name, "key": "value", "uid": uid, "resourceVersion": "2"}}), ..self }
    }

    /// The record says this about the target.
    fn recorded(self, recorded: Delivered) -> Self {
        Self { recorded: Some(recorded), ..self }
    }

    /// What is decided, in words.
    fn outcome(self) -> String {
        let mut facts = facts_of(&self.spec, &self.status);
        if let Known::Present(seen) = &self.place
            && seen.live
        {
            let values: BTreeMap<_, _> =
                self.content.iter().map(|(key, text)| ((*key).to_owned(), Held::Value(plaintext(text)))).collect();
            facts.learned.content = Some(Content { uid: seen.view.uid.clone(), values });
        }
        facts.snapshot.secrets.insert("db".to_owned(), self.place);
        if self.refused {
            let problem = Problem::new(Reason::WriteRefused, "");
            facts.written.refused = Some(Refused { secret: "db".to_owned(), problem });
        }
        let value = plaintext(VALUE);
        let delivery = match decide(
            &facts,
            ID,
            self.recorded.as_ref(),
            Wanted { previous: None, values: &|| Ok(Values::of(&value)) },
        ) {
            Ok(delivery) => delivery,
            Err(Need::Read(Read::Secret(_))) => return "look".to_owned(),
            Err(need) => return format!("{need:?}"),
        };
        match (&delivery.action, &delivery.record) {
            (Action::Nothing, _) => "nothing".to_owned(),
            (Action::Write(None), _) => "create".to_owned(),
            (Action::Write(Some(_)), Delivered::Adopted { .. }) => "adopt".to_owned(),
            (Action::Write(Some(_)), _) => "write".to_owned(),
            (Action::Recreate(_), _) => "recreate".to_owned(),
            (Action::Blocked(Verdict::Terminal(problem)), _) => format!("terminal {}", problem.reason),
            (Action::Blocked(Verdict::Pending(problem)), _) => format!("pending {}", problem.reason),
            (Action::Blocked(Verdict::Working(problem)), _) => format!("working {}", problem.reason),
            (Action::Blocked(verdict), _) => format!("{verdict:?}"),
        }
    }
}

fn immutable(view: SecretView) -> SecretView {
    SecretView { immutable: true, ..view }
}

fn deleting(view: SecretView) -> SecretView {
    SecretView { deleting: true, ..view }
}

fn owned(view: SecretView, owners: Vec<OwnerRef>) -> SecretView {
    SecretView { owners, ..view }
}

fn with_label(mut view: SecretView, key: &str, text: &str) -> SecretView {
    view.labels.insert(key.to_owned(), text.to_owned());
    view
}

/// With one more key of ours.
fn with_key(mut view: SecretView, key: &str) -> SecretView {
    view.ours.data.insert(key.to_owned());
    view
}

/// The Secret `db` after it was adopted: with our labels, our key, and a type that is not ours.
fn after_adoption() -> SecretView {
    let mut view = retained();
    view.ours.type_ = false;
    view
}

/// With the mark of this template, which our manager owns.
fn made_by(mut view: SecretView, template: &Value) -> SecretView {
    let own = facts_of(&json!({"target": {"template": template}}), &json!({})).snapshot.own;
    view.annotations.insert(ANNO_TEMPLATE.to_owned(), own.template.unwrap().digest());
    view.ours.annotations.insert(ANNO_TEMPLATE.to_owned());
    view
}

/// With the same mark, which another manager has written.
fn marked_by_another(view: SecretView, template: &Value) -> SecretView {
    let mut view = made_by(view, template);
    view.ours.annotations.clear();
    view
}

#[test]
#[allow(clippy::too_many_lines, reason = "a row for each rule")]
fn each_rule_of_targets() {
    let other_type = || json!({"target": {"type": "example.com/other"}});
    let adopting = |more: Value| {
        let mut target = json!({"adoption": "IfUnowned"});
        target.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "target": target })
    };
    let controller = OwnerRef { controller: true, is_managed_secret: false, ..owned_by("x", "uid-x").owners.remove(0) };
    let not_owned = "terminal TargetNotOwned";
    let template = |text: &str| json!({"template": {"url": text}});
    let too_large = format!("$(\"\\\"\" {})", "|json".repeat(30));
    let both = |url: &'static str| [("url", url), ("value", VALUE)];
    let rows: Vec<(&str, Case, &str)> = vec![
        // Whether there is one.
        ("delivery: None has no target", unseen().spec(json!({"delivery": "None"})), "nothing"),
        ("what no cache shows may exist: a create-only write decides", unseen(), "create"),
        ("it was deleted", absent().in_status("db", "uid-target").recorded(own_place()), "create"),
        (
            "in status, and no cache shows it: it may have lost its label",
            unseen().in_status("db", "uid-target"),
            "look",
        ),
        // Ours.
        ("ours: its uid is in status", cached(retained()).in_status("db", "uid-target"), "write"),
        ("ours: it has our uid in an owner reference that our manager owns", cached(delivered()), "write"),
        ("not ours: another manager wrote our uid there", live(owned(unmanaged(), delivered().owners)), not_owned),
        ("ours under Retain: its owner and id are our record's", cached(retained()), "write"),
        (
            "ours under Retain, while a target moves: the record names it",
            cached(retained()).in_status("before", "uid-before").recorded(own_place()),
            "write",
        ),
        (
            "not ours: the labels alone, beside the target that status names",
            live(labelled(ID, "db")).in_status("before", "uid-before"),
            not_owned,
        ),
        ("not ours: another id than our record's", live(labelled("id-2", "db")), not_owned),
        ("not ours: another id, also with our uid", live(owned(labelled("id-2", "db"), delivered().owners)), not_owned),
        ("another type: deleted and created again", live(delivered()).spec(other_type()), "recreate"),
        ("immutable, with another value", live(immutable(delivered())).holding("old"), "terminal TargetImmutable"),
        ("immutable, with the value already", live(immutable(delivered())).holding(VALUE), "write"),
        ("refused for good in this pass", Case { refused: true, ..cached(delivered()) }, "terminal WriteRefused"),
        // It ends.
        ("being deleted: only a look tells", cached(deleting(delivered())), "look"),
        ("being deleted", live(deleting(delivered())), "pending WaitingForDeletion"),
        (
            "dying: its owner has our name and another uid",
            live(owned(retained(), owned_by("db", "uid-earlier").owners)),
            "working WaitingForDeletion",
        ),
        // Another ManagedSecret's.
        (
            "owned by another ManagedSecret: only a look tells",
            cached(owned(unmanaged(), owned_by("x", "uid-x").owners)),
            "look",
        ),
        (
            "owned by another ManagedSecret",
            live(owned(unmanaged(), owned_by("x", "uid-x").owners)),
            "pending TargetInUse",
        ),
        ("labelled as another ManagedSecret's", live(labelled("id-2", "other")), "pending TargetInUse"),
        // Not managed.
        ("adoption: Never", cached(unmanaged()), not_owned),
        ("IfUnowned: only a look tells", cached(unmanaged()).adopting(), "look"),
        ("IfUnowned: our key is absent", live(unmanaged()).adopting(), "adopt"),
        ("IfUnowned: our key holds the very same value", live(unmanaged()).adopting().holding(VALUE), "adopt"),
        ("IfUnowned: our key holds another value", live(unmanaged()).adopting().holding("theirs"), not_owned),
        ("IfUnowned: a controller owns it", live(owned(unmanaged(), vec![controller])).adopting(), not_owned),
        ("IfUnowned: it has a role", live(with_label(unmanaged(), LABEL_ROLE, ROLE_TARGET)).adopting(), not_owned),
        ("IfUnowned: another type", live(unmanaged()).spec(adopting(json!({"type": "example.com/other"}))), not_owned),
        ("IfUnowned: immutable", live(immutable(unmanaged())).adopting(), "terminal TargetImmutable"),
        (
            "IfUnowned: a label has the same value",
            live(with_label(unmanaged(), "team", "a")).spec(adopting(json!({"labels": {"team": "a"}}))),
            "adopt",
        ),
        (
            "IfUnowned: a label has another value",
            live(with_label(unmanaged(), "team", "b")).spec(adopting(json!({"labels": {"team": "a"}}))),
            not_owned,
        ),
        (
            "IfUnowned: its record is missing, and it holds the very same value",
            live(labelled("id-2", "db")).adopting().holding(VALUE),
            "adopt",
        ),
        (
            "IfUnowned: its record is missing, and it holds another value",
            live(labelled("id-2", "db")).adopting().holding("only copy"),
            not_owned,
        ),
        // A template.
        (
            "IfUnowned: the template's key is absent",
            live(unmanaged()).spec(adopting(template("x=$(value)"))).with_data(&[("theirs", "t")]),
            "adopt",
        ),
        (
            "IfUnowned: the template's key holds what the template makes",
            live(unmanaged()).spec(adopting(template("x=$(value)"))).with_data(&[("url", "x=value")]),
            "adopt",
        ),
        (
            "IfUnowned: the template's key holds something else",
            live(unmanaged()).spec(adopting(template("x=$(value)"))).with_data(&[("url", "value"), ("value", "value")]),
            not_owned,
        ),
        (
            "IfUnowned: what the template makes is too large to compare",
            live(unmanaged()).spec(adopting(template(&too_large))).with_data(&[("url", "x")]),
            "terminal TemplateTooLarge",
        ),
        (
            "immutable, with the value and what the template makes",
            live(immutable(delivered())).spec(json!({"target": template("$(value)")})).with_data(&both("value")),
            "write",
        ),
        (
            "immutable, with something else under the template's key",
            live(immutable(delivered())).spec(json!({"target": template("$(value)")})).with_data(&both("old")),
            "terminal TargetImmutable",
        ),
        (
            "immutable, with a key that the template has given up",
            live(immutable(with_key(delivered(), "url"))).with_data(&both("value")),
            "terminal TargetImmutable",
        ),
        (
            "adopted: the template gets a key that holds something else",
            live(after_adoption())
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(template("x")))
                .with_data(&[("url", "theirs")]),
            not_owned,
        ),
        (
            "adopted: another program has changed a key of the template that is ours",
            live(with_key(after_adoption(), "url"))
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(template("x")))
                .with_data(&[("url", "theirs")]),
            "adopt",
        ),
        (
            "adopted: another program has taken over a key of the template that made the target",
            live(made_by(after_adoption(), &json!({"url": "x"})))
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(template("x")))
                .with_data(&[("url", "theirs")]),
            "adopt",
        ),
        (
            "adopted: another program has taken over the key that the template replaces",
            Case {
                status: json!({"target": {"name": "db", "key": "", "uid": "uid-target", "resourceVersion": "2"}}),
                ..live(made_by(after_adoption(), &json!({"token": "t=$(value)"})))
            }
            .recorded(adopted("uid-target"))
            .spec(adopting(json!({"key": "token", "template": {"token": "t=$(value)"}})))
            .with_data(&[("token", "theirs")]),
            "adopt",
        ),
        (
            "adopted: another template made the target, and the key may be another program's",
            live(made_by(after_adoption(), &json!({"other": "x"})))
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(template("x")))
                .with_data(&[("url", "theirs")]),
            not_owned,
        ),
        (
            "adopted: another program wrote the mark of the template",
            live(marked_by_another(after_adoption(), &json!({"url": "x"})))
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(template("x")))
                .with_data(&[("url", "theirs")]),
            not_owned,
        ),
        // Adopted.
        (
            "adopted: the record remembers it, and it has our id",
            live(after_adoption()).in_status("db", "uid-target").recorded(adopted("uid-target")).adopting(),
            "adopt",
        ),
        (
            "adopted: it stays so under adoption: Never",
            live(after_adoption()).in_status("db", "uid-target").recorded(adopted("uid-target")),
            "adopt",
        ),
        (
            "adopted: until it has our id, the conditions are checked again",
            live(unmanaged()).recorded(adopted("uid-target")).adopting().holding("theirs"),
            not_owned,
        ),
        ("adopted: it may have lost its label", unseen().recorded(adopted("uid-target")).adopting(), "look"),
        ("adopted: it was deleted, and one of ours is made", absent().recorded(adopted("uid-target")), "create"),
        (
            "adopted: another type is never recreated",
            live(after_adoption()).recorded(adopted("uid-target")).spec(adopting(json!({"type": "example.com/other"}))),
            not_owned,
        ),
        (
            "adopted: the value moves to a key that holds something else",
            Case { content: vec![("token", "theirs")], ..live(after_adoption()) }
                .in_status("db", "uid-target")
                .recorded(adopted("uid-target"))
                .spec(adopting(json!({"key": "token"}))),
            not_owned,
        ),
        (
            "adopted: made immutable with another value",
            live(immutable(after_adoption())).recorded(adopted("uid-target")).holding("old"),
            "terminal TargetImmutable",
        ),
        ("adopted: another Secret in its place", live(unmanaged()).recorded(adopted("uid-earlier")), not_owned),
    ];
    for (rule, case, expected) in rows {
        assert_eq!(case.outcome(), expected, "{rule}");
    }
}

/// A spec that is read during a pass can ask for more keys than were looked for.
#[test]
fn a_key_that_was_not_read_is_not_taken_for_absent() {
    let spec = |template: Value| json!({"target": {"adoption": "IfUnowned", "template": template}});
    let own = |template: Value| facts_of(&spec(template), &json!({})).snapshot.own;
    let mut facts = facts_of(&spec(json!({})), &json!({}));
    let seen = Seen { view: unmanaged(), authenticity: Authenticity::NotARecord, live: true };
    facts.snapshot.secrets.insert("db".to_owned(), Known::Present(Box::new(seen)));
    facts.learned.content = Some(Content { uid: "uid-target".to_owned(), values: BTreeMap::new() });
    let value = plaintext(VALUE);

    facts.follow(own(json!({})));
    let delivery = decide(&facts, ID, None, Wanted { previous: None, values: &|| Ok(Values::of(&value)) }).unwrap();
    assert!(matches!(delivery.action, Action::Write(Some(_))), "{:?}", delivery.action);
    facts.follow(own(json!({"url": "x://$(value)"})));
    let need = decide(&facts, ID, None, Wanted { previous: None, values: &|| Ok(Values::of(&value)) }).unwrap_err();
    assert!(matches!(&need, Need::Read(Read::Secret(name)) if name == "db"), "{need:?}");
}
