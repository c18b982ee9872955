//! Carries out what [`decide`] says, step by step, and puts what it learns back into the facts.
//!
//! In: [`Facts`] and the keyring. Out: reads and writes at the API server, entries in the index, events, log lines. A
//! refused precondition is nothing special: the object is read live and `decide` is asked again. A step carries all that
//! it needs: nothing is looked up here that `decide` knew.

mod actor;
mod reads;
mod records;
mod status;
mod targets;

use std::time::Duration;

use tracing::{debug, warn};

pub(super) use self::actor::Actor;
use super::{
    decide,
    facts::Facts,
    failure::Failure,
    plan::{Finish, Slot, Step, Write},
};

/// Steps after which a pass gives up: more than any real one takes, so a circle in `decide` ends here.
const MAX_STEPS: usize = 48;
/// Refused preconditions after which a pass gives up and comes back later.
const MAX_CONFLICTS: usize = 6;

/// How a pass ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum End {
    /// As `decide` said.
    Finished(Finish),
    /// A call failed; the failure has been said in the status where that was possible.
    Failed(Failure),
}

impl Actor<'_> {
    /// Runs a pass to its end.
    pub(super) async fn pass(&self, facts: &mut Facts) -> End {
        let mut conflicts = 0;
        for _ in 0..MAX_STEPS {
            let done = match decide::decide(facts) {
                Step::Finish(finish) => return End::Finished(finish),
                Step::Read(read) => self.read(facts, &read).await,
                Step::Write(write) => match self.write(facts, &write).await {
                    // Another client is changing the Secret now, so the operator slows down its answers to that client. The
                    // event of this change starts the next pass.
                    Err(Failure::Conflict) if write.is_repair() => {
                        facts.written.repaired = true;
                        return End::Finished(Finish { after: Some(Duration::ZERO), retry: false });
                    }
                    Err(Failure::Conflict) if conflicts < MAX_CONFLICTS => {
                        conflicts += 1;
                        self.look_again(facts, &write).await
                    }
                    done => done,
                },
            };
            if let Err(failure) = done {
                self.say_failure(facts, &failure).await;
                return End::Failed(failure);
            }
        }
        warn!("gave up after {MAX_STEPS} steps; will retry");
        End::Finished(Finish { after: None, retry: true })
    }

    async fn write(&self, facts: &mut Facts, write: &Write) -> Result<(), Failure> {
        match write {
            Write::Record(record, why) => self.write_record(facts, record, *why).await,
            Write::Target(target, why) => self.write_target(facts, target, *why).await,
            Write::Release(adopted) => self.release(facts, adopted).await,
            Write::Delete(secret, why) => self.delete(facts, secret, *why).await,
            Write::Retype(secret, target) => self.retype(facts, secret, target).await,
            Write::Status(status) => self.write_status(facts, status).await,
        }
    }

    /// After a refused precondition: what is there now?
    ///
    /// The client that changed the Secret may have moved the record too, so the record is read again before the next write.
    /// A refused create-only write of a target is different: that Secret may have existed for a long time.
    async fn look_again(&self, facts: &mut Facts, write: &Write) -> Result<(), Failure> {
        if !matches!(write, Write::Target(target, _) if target.slot == Slot::Free) {
            facts.learned.record = None;
        }
        let name = match write {
            Write::Record(record, _) => record.meta.object_name(),
            Write::Target(target, _) => target.name.clone(),
            Write::Release(secret) | Write::Delete(secret, _) | Write::Retype(secret, _) => secret.name.clone(),
            Write::Status(_) => return self.read_object(facts).await,
        };
        debug!(secret = name, "the API server refused a precondition; reading the Secret again");
        self.read_secret(facts, &name).await
    }
}
