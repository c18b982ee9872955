//! Writes of the backing record.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future;
use managed_secrets_api::{
    Reason,
    keys::{RECORD_DATA_KEY, TYPE_RECORD},
};
use managed_secrets_crypto::{
    Seed,
    mse1::{self, Place, Record},
};
use serde_json::json;
use tracing::info;

use super::{
    super::{
        altered::{Altered, Intent, Part},
        facts::{Confirmed, Facts, RecordReceipt},
        failure::Failure,
        plan::{Bytes, Contents, RecordWrite, Slot, Why},
        view::Own,
    },
    actor::{Actor, Applied, note_altered, owner_references, stopped},
};

impl Actor<'_> {
    pub(super) async fn write_record(&self, facts: &mut Facts, write: &RecordWrite, why: Why) -> Result<(), Failure> {
        let contents = self.contents(facts, write)?;
        let sealed = &contents.bytes;
        let commitment = *sealed.commitment();
        let seed = self.active_seed()?;
        let annotations = write
            .meta
            .annotations(&facts.snapshot.own.namespace, seed, &commitment)
            .map_err(|error| Failure::Crypto(error.to_string()))?;
        let labels = write.meta.labels();
        let body = json!({
            "metadata": {
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": owner_references(&facts.snapshot.own, write.owner_reference),
            },
            "type": TYPE_RECORD,
            "data": {RECORD_DATA_KEY: BASE64_STANDARD.encode(sealed.as_bytes())},
        });
        let name = write.meta.object_name();
        let intent = Intent {
            labels: &labels,
            annotations: &annotations,
            owner: write.owner_reference.then_some(facts.snapshot.own.uid.as_str()),
            data: vec![(RECORD_DATA_KEY, sealed.as_bytes())],
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
        facts.learned.record = Some(Confirmed { uid: live.view.uid.clone(), commitment, contents: Ok(contents) });
        facts.written.record = Some(RecordReceipt { resource_version: live.view.resource_version.clone(), why });
        facts.written.repaired |= why == Why::OutOfStep || unchanged;
        self.written(facts, call, live.view);
        Ok(())
    }

    /// What the record will hold: kept, or sealed.
    fn contents(&self, facts: &Facts, write: &RecordWrite) -> Result<Contents, Failure> {
        let value = match &write.bytes {
            Bytes::Keep(Contents { bytes, value }) => {
                let bytes = self.under_active_seed(&facts.snapshot.own, bytes)?;
                return Ok(Contents { bytes, value: Arc::clone(value) });
            }
            Bytes::Reseal(value) | Bytes::Incoming(value) | Bytes::FromTarget(value) => value,
        };
        let seed = self.active_seed()?;
        let own = &facts.snapshot.own;
        let place = Place { namespace: &own.namespace, object: &own.name };
        let bytes = mse1::seal(seed, &place, &own.uid, write.meta.version, value)
            .map_err(|error| Failure::Crypto(error.to_string()))?;
        Ok(Contents { bytes: Arc::new(bytes), value: Arc::clone(value) })
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
