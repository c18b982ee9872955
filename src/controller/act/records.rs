//! Writes of the backing record.

use std::{collections::BTreeMap, iter, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future;
use managed_secrets_api::{
    Reason,
    keys::{RECORD_DATA_KEY, TYPE_RECORD},
    record::{Unopened, kept_key},
};
use managed_secrets_crypto::{
    Plaintext, Seed,
    mse1::{self, Place, Record},
};
use serde_json::{Map, json};
use tracing::info;

use super::{
    super::{
        altered::{Altered, Intent, Part},
        facts::{Confirmed, Facts, RecordReceipt, Seen},
        failure::Failure,
        plan::{Bytes, Contents, RecordWrite, Slot, Why},
        record::Source,
        view::Own,
    },
    actor::{Actor, Applied, note_altered, owner_references, stopped},
    reads::{opened, strays},
};

/// What a record holds, or why it does not open.
type Value = Result<Arc<Plaintext>, Unopened>;

impl Actor<'_> {
    pub(super) async fn write_record(&self, facts: &mut Facts, write: &RecordWrite, why: Why) -> Result<(), Failure> {
        let (sealed, value) = self.contents(facts, write)?;
        let commitment = *sealed.commitment();
        let seed = self.active_seed()?;
        let annotations = write
            .meta
            .annotations(&facts.snapshot.own.namespace, seed, &commitment)
            .map_err(|error| Failure::Crypto(error.to_string()))?;
        let labels = write.meta.labels();
        // One that cannot be unwrapped stays as it is, and does not hold up the others.
        let wrapped = |bytes: &Arc<Record>| self.under_active_seed(&facts.snapshot.own, bytes);
        let kept =
            write.kept.iter().map(|(version, bytes)| (*version, wrapped(bytes).unwrap_or_else(|_| Arc::clone(bytes))));
        let kept: BTreeMap<u64, Arc<Record>> = kept.collect();
        let of_kept = kept.iter().map(|(version, record)| (kept_key(*version), record.as_bytes()));
        let data = iter::once((RECORD_DATA_KEY.to_owned(), sealed.as_bytes())).chain(of_kept);
        // To hold another content makes a key this operator's; so the next write of the record removes it.
        let emptied = write.emptied.iter().map(|key| (key.clone(), &[][..]));
        let data: Vec<_> = data.chain(emptied).collect();
        let body = json!({
            "metadata": {
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": owner_references(&facts.snapshot.own, write.owner_reference),
            },
            "type": TYPE_RECORD,
            "data": data.iter().map(|(key, bytes)| (key.clone(), json!(BASE64_STANDARD.encode(bytes)))).collect::<Map<_, _>>(),
        });
        let name = write.meta.object_name();
        let rotates = is_rotation(facts, write, why);
        let intent = Intent {
            labels: &labels,
            annotations: &annotations,
            owner: write.owner_reference.then_some(facts.snapshot.own.uid.as_str()),
            data: data.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect(),
            type_: Some(TYPE_RECORD),
            mutable: write.mutable,
        };
        let part = if write.slot == Slot::Free { Part::NewRecord } else { Part::Record };
        let call = self.call(facts, &name);
        let ask = async {
            match &write.then {
                Some(target) => self.ask(facts, target).await,
                None => None,
            }
        };
        let applying = self.apply(&name, &write.slot, body, &intent, part, None);
        let (applied, asked) = future::join(applying, ask).await;
        facts.learned.asked = asked;
        let (live, changed) = match applied {
            Ok(Applied::Stored(live, changed)) => (*live, changed),
            Ok(Applied::Kept(field)) => {
                note_altered(facts, Altered { secret: name, part, field });
                facts.written.kept_out = Some(write.meta.source.clone());
                return Ok(());
            }
            Err(failure) => {
                stopped(facts, &name, part, failure)?;
                facts.written.kept_out = Some(write.meta.source.clone());
                return Ok(());
            }
        };
        let unchanged = write.slot == Slot::over(&live.view);
        if let Some(field) = changed {
            let altered = Altered { secret: name.clone(), part, field };
            let is_spoiled = altered.is_spoiled();
            note_altered(facts, altered);
            if is_spoiled {
                facts.written.kept_out = Some(write.meta.source.clone());
                self.written(facts, call, live.view);
                return Ok(());
            }
        }
        facts.written.kept_out = None;
        info!(record = name, ?why, version = write.meta.version, bytes = ?write.bytes, "record written");
        if why == Why::TakenOver {
            let note = format!("took over record {name} of an earlier ManagedSecret: id, dates and version continue");
            self.events.say(&facts.snapshot.own, Reason::RecordTakenOver, "TakeOver", false, &note);
        }
        if let Bytes::Incoming(_) = write.bytes {
            // It has become the record's: a value that comes next is read, or generated, again.
            facts.learned.incoming = None;
        }
        self.say_lost(facts, write, why);
        let mut versions = kept;
        versions.insert(write.meta.version, Arc::clone(&sealed));
        let opened = opened(self.keyring, &facts.snapshot.own, &write.meta, &versions);
        let (uid, strays) = (live.view.uid.clone(), strays(&versions, &live));
        let contents = value.map(|value| Contents { bytes: sealed, value });
        facts.learned.record = Some(Confirmed { uid, commitment, contents, versions, opened, strays });
        let resource_version = live.view.resource_version.clone();
        facts.written.record = Some(RecordReceipt { resource_version, why, rotates });
        facts.written.repaired |= why == Why::OutOfStep || unchanged;
        self.written(facts, call, live.view);
        Ok(())
    }

    /// Announces which earlier values others took out of a record, or changed: with the first write that follows.
    fn say_lost(&self, facts: &Facts, write: &RecordWrite, why: Why) {
        let own = &facts.snapshot.own;
        let is_base = |seen: &&Seen| seen.record().is_some_and(|meta| meta.id == write.meta.id);
        let lost: Vec<u64> = match (facts.all_present().find(is_base), &facts.learned.record) {
            _ if why == Why::Rebuilt => {
                own.status.history.iter().flatten().filter_map(|kept| kept.version.try_into().ok()).collect()
            }
            // What status knows was announced before.
            (Some(base), Some(read)) if facts.written.record.is_none() && !facts.is_current(&base.view) => {
                let kept = base.record().into_iter().flat_map(|meta| meta.history.iter());
                kept.map(|kept| kept.version).filter(|version| !read.versions.contains_key(version)).collect()
            }
            _ => return,
        };
        if lost.is_empty() {
            return;
        }
        let lost = lost.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let note = format!(
            "earlier versions of record {} were deleted or changed by another program and cannot be delivered any more: {lost}; \
             the other versions stay",
            write.meta.object_name()
        );
        self.events.say(own, Reason::VersionLost, "Reconcile", true, &note);
    }

    /// What the record will hold, kept or sealed, and its value, or why it does not open.
    fn contents(&self, facts: &Facts, write: &RecordWrite) -> Result<(Arc<Record>, Value), Failure> {
        let value = match &write.bytes {
            Bytes::Keep(Contents { bytes, value }) => {
                let bytes = self.under_active_seed(&facts.snapshot.own, bytes)?;
                return Ok((bytes, Ok(Arc::clone(value))));
            }
            Bytes::Unopened(bytes, unopened) => {
                let wrapped = self.under_active_seed(&facts.snapshot.own, bytes);
                return Ok((wrapped.unwrap_or_else(|_| Arc::clone(bytes)), Err(unopened.clone())));
            }
            Bytes::Reseal(value) | Bytes::Incoming(value) | Bytes::FromTarget(value) => value,
        };
        if let Some(why) = &self.refused {
            return Err(Failure::Kms(why.clone()));
        }
        let seed = self.active_seed()?;
        let own = &facts.snapshot.own;
        let place = Place { namespace: &own.namespace, object: &own.name };
        let bytes = mse1::seal(seed, &place, &own.uid, write.meta.version, value)
            .map_err(|error| Failure::Crypto(error.to_string()))?;
        Ok((Arc::new(bytes), Ok(Arc::clone(value))))
    }

    /// Bytes that stay, under the seed that authenticates the metadata beside them.
    fn under_active_seed(&self, own: &Own, bytes: &Arc<Record>) -> Result<Arc<Record>, Failure> {
        let seed = self.active_seed()?;
        if bytes.seed_id() == seed.id() {
            return Ok(Arc::clone(bytes));
        }
        let place = Place { namespace: &own.namespace, object: &own.name };
        let rewrapped = mse1::rewrap(bytes, &place, |id| self.keyring.seed(id), seed);
        rewrapped.map(Arc::new).map_err(|error| Failure::Crypto(error.to_string()))
    }

    fn active_seed(&self) -> Result<&Seed, Failure> {
        self.keyring.active_seed().ok_or_else(|| Failure::Crypto("the keyring has no active seed".to_owned()))
    }
}

/// Whether a write replaces a generated value by another one.
fn is_rotation(facts: &Facts, write: &RecordWrite, why: Why) -> bool {
    let is_generated = |source: &Source| matches!(source, Source::Generate { .. });
    let mut records = facts.all_present().filter_map(Seen::record);
    why == Why::NewValue
        && is_generated(&write.meta.source)
        && records.any(|before| before.id == write.meta.id && is_generated(&before.source))
}
