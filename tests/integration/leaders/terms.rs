//! Who led when, and who wrote when, from the audit log. Each replica adds its identity to the name of its client.

use std::fmt;

use testkit::audit::Request;

/// From the request that took the Lease to the one by which another replica took it.
#[derive(Debug)]
pub(super) struct Term {
    leader: String,
    from: String,
    until: Option<String>,
}

/// A request that changes something, or tries to.
pub(super) struct Write {
    replica: String,
    received: String,
    object: String,
    /// Whether the API server carried it out.
    pub(super) stored: bool,
    summary: String,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.received, self.replica, self.summary)
    }
}

impl Term {
    /// Whether the write is of this term's leader, and came in it.
    pub(super) fn contains(&self, write: &Write) -> bool {
        self.leader == write.replica
            && self.from <= write.received
            && self.until.as_ref().is_none_or(|until| write.received <= *until)
    }
}

/// The identity in `client/version (identity)`.
fn replica(request: &Request) -> Option<String> {
    Some(request.user_agent.strip_suffix(')')?.split_once(" (")?.1.to_owned())
}

/// The terms, by the successful writes of the Lease.
pub(super) fn of(requests: &[Request], operator_namespace: &str) -> Vec<Term> {
    let is_lease = |request: &&Request| {
        let object = request.object();
        object.resource == "leases" && object.namespace == operator_namespace && request.is_write()
    };
    let mut writes: Vec<_> = requests.iter().filter(is_lease).filter(|request| request.code() < 300).collect();
    writes.sort_by(|one, other| one.received.cmp(&other.received));
    let mut terms: Vec<Term> = Vec::new();
    for write in writes {
        let Some(leader) = replica(write) else { continue };
        if terms.last().is_some_and(|term| term.leader == leader) {
            continue;
        }
        if let Some(last) = terms.last_mut() {
            last.until = Some(write.received.clone());
        }
        terms.push(Term { leader, from: write.received.clone(), until: None });
    }
    terms
}

/// What replicas wrote as leaders: everything in the served namespace, and the public key. Refused writes count.
pub(super) fn writes(requests: &[Request], served: &str, operator_namespace: &str) -> Vec<Write> {
    let is_leaders = |request: &&Request| {
        let object = request.object();
        let public_key = object.namespace == operator_namespace && object.resource == "configmaps";
        (object.namespace == served || public_key) && request.is_write()
    };
    let write = |request: &Request| {
        let object = request.object();
        Some(Write {
            replica: replica(request)?,
            received: request.received.clone(),
            object: format!("{} {}", object.resource, object.name),
            stored: request.code() < 300,
            summary: request.summary(),
        })
    };
    requests.iter().filter(is_leaders).filter_map(write).collect()
}

/// The writes of replicas that led no more, which changed what another leader had written since their term. A request that
/// was on its way when its writer was frozen may arrive late; it must not have such an effect.
pub(super) fn overwriting<'a>(terms: &[Term], writes: &'a [Write]) -> Vec<&'a Write> {
    let late = writes.iter().filter(|write| write.stored && !contain(terms, write));
    let overwrites = |late: &&Write| {
        let own = terms.iter().filter(|term| term.leader == late.replica && term.from <= late.received);
        let ended = own.filter_map(|term| term.until.as_ref()).max();
        writes.iter().any(|other| {
            other.stored
                && other.object == late.object
                && other.replica != late.replica
                && other.received < late.received
                && ended.is_none_or(|ended| *ended <= other.received)
        })
    };
    late.filter(overwrites).collect()
}

/// Whether the write came in a term of its writer.
pub(super) fn contain(terms: &[Term], write: &Write) -> bool {
    terms.iter().any(|term| term.contains(write))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(second: u32, replica: &str, resource: &str, code: u16) -> Request {
        let at = format!("2026-01-01T00:00:{second:02}.000000Z");
        let namespace = if resource == "leases" { "own" } else { "shop" };
        serde_json::from_value(json!({
            "auditID": "1", "stage": "ResponseComplete", "verb": "update", "requestURI": "/", "user": {"username": "it"},
            "userAgent": format!("client/1 ({replica})"), "objectRef": {"resource": resource, "namespace": namespace},
            "responseStatus": {"code": code}, "requestReceivedTimestamp": at, "stageTimestamp": at,
        }))
        .unwrap()
    }

    #[test]
    fn a_write_of_one_that_leads_no_more_is_found() {
        let log = [
            request(1, "a", "leases", 201),
            request(2, "a", "secrets", 200),
            request(3, "b", "leases", 409),
            request(4, "a", "secrets", 200),
            request(5, "b", "leases", 200),
            request(6, "b", "secrets", 200),
            request(7, "a", "secrets", 409),
            request(8, "a", "leases", 200),
            request(9, "a", "secrets", 200),
            request(10, "b", "secrets", 200),
        ];
        let (terms, writes) = (of(&log, "own"), writes(&log, "shop", "own"));
        assert_eq!(terms.iter().map(|term| term.leader.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
        let outside: Vec<_> = writes.iter().filter(|write| !contain(&terms, write)).collect();
        let seconds: Vec<_> = outside.iter().map(|write| &write.received[17..19]).collect();
        assert_eq!(seconds, ["07", "10"]);
        let overwriting: Vec<_> = overwriting(&terms, &writes).iter().map(|write| &write.received[17..19]).collect();
        assert_eq!(overwriting, ["10"], "the other one was refused");
    }
}
