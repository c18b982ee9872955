//! Writes of the status, and what is said of them.

use managed_secrets_api::{ManagedSecretStatus, Reason};
use tracing::{debug, info, warn};

use super::{
    super::{
        altered,
        conditions::{EXPIRING, READY},
        decide,
        facts::{Facts, Freshness},
        failure::Failure,
        plan::{Step, Write},
        view::Own,
    },
    actor::Actor,
};

impl Actor<'_> {
    pub(super) async fn write_status(&self, facts: &mut Facts, status: &ManagedSecretStatus) -> Result<(), Failure> {
        let before = facts.snapshot.own.status.clone();
        let call = self.call(facts, &facts.snapshot.own.name);
        let own = match self.cluster.write_status(&facts.snapshot.own, status).await {
            Ok(own) => own,
            Err(Failure::Absent) => {
                facts.learned.own = Freshness::Gone;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        if own.resource_version == facts.snapshot.own.resource_version {
            self.stats.idle_writes.increment();
        }
        let altered = altered::field_of_status(status, &own.clone().kept().status);
        let described = Own { status: status.clone(), ..own.clone() };
        self.say_status(&described, &before);
        self.say_expiry(&described, &before);
        if let Some(field) = altered {
            self.say_altered(&own, &field);
            facts.written.status_altered = true;
        }
        let concerned = call.answered(|index, sent| index.put_described(own.clone(), sent));
        self.wake_others(facts, concerned);
        // What the server gave back may lack what an older CRD does not know: what was written counts, or this would
        // be written again and again.
        facts.follow(Own { status: status.clone(), ..own });
        facts.learned.own = Freshness::Live;
        Ok(())
    }

    /// Logs and announces that the API server stored another status than the operator wrote: the status itself cannot say it.
    fn say_altered(&self, own: &Own, field: &str) {
        warn!(field, "an admission policy or webhook changes the status that the operator writes");
        let note = format!(
            "an admission policy or webhook changes {field} of this ManagedSecret, or the CRD is older than the operator: the \
             status may be wrong; exclude managedsecrets/status from the policy or webhook"
        );
        self.events.say(own, Reason::AlteredByAdmission, "WriteStatus", true, &note);
    }

    /// Logs and announces what a status says that the one before did not.
    fn say_status(&self, own: &Own, before: &ManagedSecretStatus) {
        let ready = |status: &ManagedSecretStatus| {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            conditions
                .iter()
                .find(|condition| condition.type_ == READY)
                .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        };
        let Some((status, reason, message)) = ready(&own.status) else { return };
        info!(ready = status, reason, version = own.status.version, "status written");
        let Some(reason) = Reason::ALL.iter().copied().find(|known| known.as_str() == reason) else { return };
        let before_ready = ready(before);
        let same_state =
            before_ready.as_ref().is_some_and(|(old, cause, _)| *old == status && cause == reason.as_str());
        let new_version = before.version != own.status.version;
        let other_version = !new_version && before.delivered() != own.status.delivered();
        let recovers = before_ready.is_some_and(|(old, ..)| old == "False");
        if before.version.is_none() && reason == Reason::Served && !recovers {
            // The status says the first delivery. An event for each would be a fourth write for each new object.
            return;
        }
        match (status.as_str(), same_state) {
            ("True", _) if new_version => {
                let note = format!("version {}: {message}", own.status.version.unwrap_or_default());
                self.events.say(own, reason, "NewValue", false, &note);
            }
            ("True", true) if other_version => {
                let note = format!("version {}: {message}", own.status.delivered().unwrap_or_default());
                self.events.say(own, reason, "OtherVersion", false, &note);
            }
            ("True", false) => {
                let warning = !matches!(reason, Reason::Served | Reason::Suspended);
                self.events.say(own, reason, "Serve", warning, &message);
            }
            ("False", false) => self.events.say(own, reason, "Reconcile", true, &message),
            _ => {}
        }
    }

    /// Announces once that a value expires soon, and once that it has expired.
    fn say_expiry(&self, own: &Own, before: &ManagedSecretStatus) {
        let expiring = |status: &ManagedSecretStatus| {
            let said = status.conditions.iter().flatten().find(|condition| condition.type_ == EXPIRING);
            said.map(|said| (said.reason.clone(), said.message.clone()))
        };
        let Some((reason, message)) = expiring(&own.status) else { return };
        if expiring(before).is_none_or(|(before, _)| before != reason)
            && let Some(reason) = Reason::OF_EXPIRY.into_iter().find(|known| known.as_str() == reason)
        {
            self.events.say(own, reason, "Expire", true, &message);
        }
    }

    /// Says a failure in the status, where that can be done.
    pub(super) async fn say_failure(&self, facts: &mut Facts, failure: &Failure) {
        warn!(%failure, "pass failed");
        if matches!(failure, Failure::Conflict | Failure::Unavailable { .. }) && facts.snapshot.failures == 0 {
            // Such a failure is often over by the next try, so the first one is not reported.
            return;
        }
        if let Step::Write(write) = decide::failed(facts, &failure.verdict())
            && let Write::Status(status) = &*write
            && let Err(second) = self.write_status(facts, status).await
        {
            debug!(failure = %second, "the failure was not written to the status");
        }
    }
}
