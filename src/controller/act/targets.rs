//! Writes and removals of targets, and the removal of records that are left over.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::{Reason, limits::SECRET_NAME_MAX, template::Rendered};
use managed_secrets_client::Run;
use serde_json::{Map, Value, json};
use tracing::info;

use super::{
    super::{
        altered::{Altered, Intent, Part},
        facts::{Asked, Facts, Held, Holds, Known, Refused},
        failure::Failure,
        plan::{Problem, Slot, TargetWrite, Why},
        record::Authenticity,
        view::{Own, SecretView},
    },
    actor::{Actor, Applied, note_altered, owner_references, stopped},
};

impl Actor<'_> {
    pub(super) async fn write_target(&self, facts: &mut Facts, write: &TargetWrite, why: Why) -> Result<(), Failure> {
        let asked = facts.learned.asked.take();
        let Some(data) = rendered(facts, write) else { return Ok(()) };
        let body = body(&facts.snapshot.own, write, &data);
        let intent = intent(&facts.snapshot.own.uid, write, &data);
        // Other keys of an adopted Secret are written from now on, and those that were there before stay.
        let slot = match &write.found_keys[..] {
            [] => write.slot.clone(),
            found => {
                let found: Vec<&str> = found.iter().map(String::as_str).collect();
                self.leave(&write.name, &write.slot, &found).await?
            }
        };
        let call = self.call(facts, &write.name);
        let (live, changed) = match self.apply(&write.name, &slot, body, &intent, Part::Target, asked).await {
            Ok(Applied::Stored(live, changed)) => (*live, changed),
            Ok(Applied::Kept(field)) => {
                note_altered(facts, Altered { secret: write.name.clone(), part: Part::Target, field });
                return Ok(());
            }
            // The type may be another, or the Secret immutable: a live look tells. What still is refused then, is refused
            // for good.
            Err(Failure::Invalid(_)) if write.from_cache => return self.read_secret(facts, &write.name).await,
            Err(failure) => return refused(facts, write, failure),
        };
        let moved = write.slot != Slot::over(&live.view);
        info!(secret = write.name, ?why, version = write.version, changed = moved, "target written");
        let altered = changed.map(|field| Altered { secret: write.name.clone(), part: Part::Target, field });
        if !altered.as_ref().is_some_and(Altered::is_spoiled) {
            let resource_version = live.view.resource_version.clone();
            facts.written.holds = Some(Holds { uid: live.view.uid.clone(), resource_version, version: write.version });
            if let Some(content) = facts.learned.content.as_mut().filter(|content| content.uid == live.view.uid) {
                // Where the record has lost a value, this is its only copy.
                content.values.extend(data.iter().map(|(key, bytes)| (key.clone(), Held::new(bytes.clone()))));
            }
        }
        if let Some(altered) = altered {
            note_altered(facts, altered);
            self.written(facts, call, live.view);
            return Ok(());
        }
        if why == Why::Drift && moved {
            let who = write.other_manager.as_deref().unwrap_or("another writer");
            let note =
                format!("Secret {} was changed, unlabelled or deleted by {who}; the operator restored it", write.name);
            self.events.say(&facts.snapshot.own, Reason::TargetDriftCorrected, "Repair", true, &note);
        }
        // Also if nothing moved: a client that edits fields of others in a loop is not followed at full speed.
        facts.written.repaired |= why == Why::Drift || !moved;
        self.written(facts, call, live.view);
        Ok(())
    }

    /// Deletes a target whose type is another, once the API server would accept the one that is created after it. A dry run
    /// of that write tells, under a name that no Secret has: what is delivered stays where it is refused.
    pub(super) async fn retype(
        &self,
        facts: &mut Facts,
        secret: &SecretView,
        write: &TargetWrite,
    ) -> Result<(), Failure> {
        let Some(data) = rendered(facts, write) else { return Ok(()) };
        let intent = intent(&facts.snapshot.own.uid, write, &data);
        let name = trial_name(&write.name, &facts.snapshot.fresh_id);
        let body = self.cluster.whole(&name, &Slot::Free, body(&facts.snapshot.own, write, &data));
        let stored = match self.cluster.apply_secret(&name, &Slot::Free, Run::Dry, &body).await {
            Ok(stored) => stored,
            Err(failure) => return refused(facts, write, failure),
        };
        if let Some(field) = intent.changed_in(&stored).filter(|field| field.spoils(Part::Target)) {
            note_altered(facts, Altered { secret: write.name.clone(), part: Part::Target, field });
            return Ok(());
        }
        self.delete(facts, secret, Why::NewType).await
    }

    /// Asks what a write of a target over an existing one would store. An answer that is a refusal is not kept: the write
    /// itself asks again, and reports it.
    pub(super) async fn ask(&self, facts: &Facts, write: &TargetWrite) -> Option<Asked> {
        let data = write.content.data().ok()?;
        let body = self.cluster.whole(&write.name, &write.slot, body(&facts.snapshot.own, write, &data));
        let stored = self.cluster.apply_secret(&write.name, &write.slot, Run::Dry, &body).await.ok()?;
        Some(Asked { body, stored })
    }

    pub(super) async fn release(&self, facts: &mut Facts, adopted: &SecretView) -> Result<(), Failure> {
        let (name, slot) = (adopted.name.as_str(), Slot::over(adopted));
        let found: Vec<&str> = adopted.found_keys().collect();
        let slot = &if found.is_empty() { slot } else { self.leave(name, &slot, &found).await? };
        // An apply of nothing gives up every field that is ours and touches no other.
        let mut body = json!({"metadata": {}});
        let apply = async |body: Value| {
            self.cluster.apply_secret(name, slot, Run::Real, &self.cluster.whole(name, slot, body)).await
        };
        let live = match apply(body.clone()).await {
            // Another client made the Secret immutable, so the operator cannot remove its key. The Secret stays as it is.
            Err(Failure::Invalid(fields)) => {
                let Some(frozen) = self.cluster.secret(name, &[]).await?.filter(|live| live.view.immutable) else {
                    return Err(Failure::Invalid(fields));
                };
                let ours = frozen.data.iter().filter(|(key, _)| frozen.view.ours.data.contains(*key));
                body["data"] = ours.map(|(key, bytes)| (key.clone(), json!(BASE64_STANDARD.encode(bytes)))).collect();
                apply(body).await?
            }
            released => released?,
        };
        self.count(slot, &live.view);
        info!(secret = name, "adopted target released");
        let concerned = self.index().remove_secret(&facts.snapshot.own.namespace, &live.view);
        self.wake_others(facts, concerned);
        let authenticity = Authenticity::for_object(&live.view, &facts.snapshot.own, self.keyring);
        facts.put(live.view, authenticity);
        Ok(())
    }

    pub(super) async fn delete(&self, facts: &mut Facts, secret: &SecretView, why: Why) -> Result<(), Failure> {
        self.cluster.delete_secret(&secret.name, &Slot::over(secret)).await?;
        info!(secret = secret.name, ?why, "Secret deleted");
        let concerned = self.index().bury(&facts.snapshot.own.namespace, secret);
        self.wake_others(facts, concerned);
        facts.snapshot.secrets.insert(secret.name.clone(), Known::Absent);
        Ok(())
    }
}

/// The data of a target, or nothing where they cannot be made: then the refusal is noted, and nothing is written.
fn rendered(facts: &mut Facts, write: &TargetWrite) -> Option<BTreeMap<String, Rendered>> {
    let problem = match write.content.data() {
        Ok(data) => return Some(data),
        Err(undeliverable) => undeliverable.problem(&write.name),
    };
    facts.written.refused = Some(Refused { secret: write.name.clone(), problem });
    None
}

/// What a write of a target with these data means. `own_uid` is that of the ManagedSecret.
fn intent<'a>(own_uid: &'a str, write: &'a TargetWrite, data: &'a BTreeMap<String, Rendered>) -> Intent<'a> {
    Intent {
        labels: &write.labels,
        annotations: &write.annotations,
        owner: write.owner_reference.then_some(own_uid),
        data: data.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect(),
        type_: write.type_.as_deref(),
        // While it holds the right value, an immutable target is as good as another.
        mutable: false,
    }
}

/// Notes that the API server refuses a target for good. Any other failure ends the pass.
fn refused(facts: &mut Facts, write: &TargetWrite, failure: Failure) -> Result<(), Failure> {
    let name = &write.name;
    let message = match failure {
        Failure::Invalid(fields) => {
            let type_ = write.type_.as_deref().unwrap_or("of the Secret");
            format!(
                "target Secret {name}: the API server refuses it: the data must be valid for its type {type_} and within the \
                 limit for a Secret ({fields})"
            )
        }
        failure @ Failure::BadRequest(_) => format!("target Secret {name}: {failure}"),
        failure => return stopped(facts, name, Part::Target, failure),
    };
    let problem = Problem::new(Reason::WriteRefused, message);
    facts.written.refused = Some(Refused { secret: name.clone(), problem });
    Ok(())
}

/// A name that no Secret has, for a dry run that creates the target `name`. It begins like that name, since policies of
/// others may depend on it.
fn trial_name(name: &str, fresh_id: &str) -> String {
    // All are ASCII: the name of a Secret, and a UUID.
    let begin = name.get(..name.len().min(SECRET_NAME_MAX.saturating_sub(fresh_id.len() + 1))).unwrap_or_default();
    format!("{}-{fresh_id}", begin.trim_end_matches(['-', '.']))
}

/// What the operator applies to a target.
fn body(own: &Own, write: &TargetWrite, data: &BTreeMap<String, Rendered>) -> Value {
    let data: Map<_, _> = data.iter().map(|(key, bytes)| (key.clone(), json!(BASE64_STANDARD.encode(bytes)))).collect();
    let mut body = json!({
        "metadata": {
            "labels": write.labels,
            "annotations": write.annotations,
            "ownerReferences": owner_references(own, write.owner_reference),
        },
        "data": data,
    });
    if let Some(type_) = &write.type_ {
        body["type"] = json!(type_);
    }
    body
}
