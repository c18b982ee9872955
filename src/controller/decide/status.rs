//! What the status says. Pure.

use std::{fmt::Write as _, time::Duration};

use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    record::KeptVersion,
    types::{Delivery as DeliveryKind, EarlierVersion, RecordRef, TargetRef},
};

use super::{
    super::{
        altered::Part,
        conditions::{self, UNSEEN_RETRY},
        expiry,
        facts::{Facts, Seen, rfc3339},
        plan::{Finish, Step, Verdict, Write},
        record::{RecordMeta, Source},
        restarts,
    },
    previous,
    record::Draft,
    rotation,
    target::Action,
};

/// Where the value is served.
pub(super) fn served_text(facts: &Facts, draft: &Draft<'_>) -> String {
    let own = &facts.snapshot.own;
    let spec = &own.spec;
    let mut text = match spec.delivery() {
        DeliveryKind::Secret => {
            let secret = spec.target_name(&own.name);
            match (own.value_key(), own.template_keys().count()) {
                (Some(key), 0) => format!("delivered as key {key} of Secret {secret}"),
                (Some(key), others) => {
                    format!("delivered as key {key} of Secret {secret}; keys from spec.target.template: {others}")
                }
                (None, keys) => format!("delivered in Secret {secret}; keys from spec.target.template: {keys}"),
            }
        }
        DeliveryKind::None => "kept encrypted; spec.delivery is None".to_owned(),
    };
    if let Some(previous) = &draft.delivery.previous {
        text.push_str(&previous::text(facts, previous));
    }
    if draft.serves_earlier() {
        let version = draft.served();
        let verb = if spec.delivery() == DeliveryKind::None { "read" } else { "delivered" };
        let note = format!("; version {version} is {verb} as spec.version says, the newest is {}", draft.meta.version);
        text.push_str(&note);
    } else if let (Source::Generate { .. }, Some(generate)) = (&draft.meta.source, &spec.generate) {
        let again = generate.rotate_every.is_some() || generate.revision.is_some();
        let once = if again { "" } else { " once" };
        let next = "a changed length or alphabet applies to the next generated value";
        write!(text, "; generated{once}: {next}").ok();
    }
    text
}

/// What becomes of a status.
pub(super) enum Report {
    /// It says something else: it is written.
    Write(Box<ManagedSecretStatus>),
    /// The same, but not yet: admission control of others changes each status that is written.
    Held(Duration),
    /// It says so already; when to look again.
    Current(Finish),
}

impl From<Report> for Step {
    fn from(report: Report) -> Self {
        match report {
            Report::Write(status) => Write::Status(*status).into(),
            Report::Held(wait) => Self::Finish(Finish::after(wait)),
            Report::Current(finish) => Self::Finish(finish),
        }
    }
}

/// The step that has the status say how a pass ended that delivers nothing.
pub(super) fn say(facts: &Facts, verdict: &Verdict) -> Step {
    report(facts, None, verdict).into()
}

/// Says what becomes of the status. `served` is the record that it describes, and where its target is.
pub(super) fn report(facts: &Facts, served: Option<(&Draft<'_>, &Seen, Option<String>)>, verdict: &Verdict) -> Report {
    let own = &facts.snapshot.own;
    let old = own.status.conditions.as_deref().unwrap_or_default();
    let (mut conditions, stalls_in) = conditions::follow(old, own.generation, verdict, facts.snapshot.now);
    let mut status = own.status.clone();
    status.observed_generation = Some(own.generation);
    if let Some((draft, record, place)) = served {
        let meta = &draft.meta;
        status.id = Some(meta.id.clone());
        status.name = Some(meta.name.clone());
        status.created_date = Some(meta.created.clone());
        status.updated_date = Some(meta.updated.clone());
        status.value_updated_time = Some(meta.value_updated.clone());
        status.revision = match &meta.source {
            Source::Generate { revision } => revision.clone(),
            Source::Sealed { .. } | Source::Secret { .. } => None,
        };
        status.next_rotation = rotation::next(&own.spec, meta).map(rfc3339);
        status.version = i64::try_from(meta.version).ok();
        status.history = earlier(meta);
        status.deletion_policy = Some(meta.deletion_policy);
        status.record = Some(RecordRef {
            name: record.view.name.clone(),
            uid: record.view.uid.clone(),
            resource_version: record.view.resource_version.clone(),
        });
        let before = own.status.delivered();
        let served = draft.serving.version.map_or(before, |version| version.try_into().ok());
        let holds_other =
            facts.written.altered.iter().any(|altered| altered.part == Part::Target && altered.is_spoiled());
        let stays = holds_other || matches!(draft.delivery.action, Action::Blocked(_));
        let delivered = if stays { before.filter(|_| own.status.target.is_some()) } else { served };
        status.delivered = delivered.filter(|delivered| Some(*delivered) != status.version);
        status.target = match &draft.delivery.action {
            // What is served at the old place is still what status describes, but for a value that has moved since:
            // without a version, it counts neither as in step nor as a copy of the lost record's value.
            _ if stays => status.target.map(|target| {
                let behind = holds_other || served != before;
                TargetRef { resource_version: if behind { String::new() } else { target.resource_version }, ..target }
            }),
            Action::Nothing | Action::Blocked(_) => None,
            Action::Write(_) | Action::Recreate(_) => {
                place.and_then(|name| facts.present(&name)).map(|seen| TargetRef {
                    name: seen.view.name.clone(),
                    key: own.value_key().unwrap_or_default().to_owned(),
                    uid: seen.view.uid.clone(),
                    resource_version: seen.view.resource_version.clone(),
                })
            }
        };
    }
    let (expiring, expires_in) = expiry::follow(own, &status, facts.snapshot.now);
    conditions.extend(expiring);
    conditions.extend(restarts::condition::follow(own, &status, &facts.snapshot.restarting, facts.snapshot.now));
    status.conditions = Some(conditions);
    if status != own.status {
        return facts.snapshot.waits.status.map_or_else(|| Report::Write(Box::new(status)), Report::Held);
    }
    let unseen = verdict.problem().is_some_and(|problem| shown_by_no_watch(problem.reason));
    let after = [stalls_in, unseen.then_some(UNSEEN_RETRY), expires_in].into_iter().flatten().min();
    // The next pass sees what is stored, and asks how long to wait.
    let after = if facts.written.status_altered { Some(Duration::ZERO) } else { after };
    Report::Current(Finish { after, retry: matches!(verdict, Verdict::Transient(_)) })
}

/// The earlier values that a record keeps, as the status says it.
fn earlier(meta: &RecordMeta) -> Option<Vec<EarlierVersion>> {
    let until = |kept: &KeptVersion| meta.history.replaced().filter(|replaced| replaced.version == kept.version);
    let all = meta.history.iter().map(|kept| EarlierVersion {
        version: i64::try_from(kept.version).unwrap_or(i64::MAX),
        created: kept.created.clone(),
        source: kept.source,
        delivered_until: until(kept).map(|replaced| replaced.until.clone()),
    });
    Some(all.collect::<Vec<_>>()).filter(|all| !all.is_empty())
}

/// Reasons whose cause may go away without any event that reaches us.
fn shown_by_no_watch(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TargetNotOwned
            | Reason::TargetImmutable
            | Reason::NameInUse
            | Reason::TargetInUse
            | Reason::WaitingForDeletion
            | Reason::RecordTampered
            // A record that was restored without its labels, or another Secret in its place.
            | Reason::RecordLost
            | Reason::SeedUnknown
            | Reason::SealedWithUnknownKey
    )
}
