//! Which source the spec wants, and whether it gives a value. Pure.

use std::sync::Arc;

use managed_secrets_api::Reason;
use managed_secrets_crypto::Plaintext;

use super::super::{
    facts::{Facts, SourceSeen},
    plan::{Need, Problem, Read, Verdict},
    record::Source,
};

/// So many passes in a row have to find no list of the sources before that is told: about three seconds.
const UNLISTED: u32 = 5;
/// Links of a ring of values that a message names.
const MAX_LINKS: usize = 8;

/// The source that the spec wants, where the caches alone can tell its fingerprint.
pub(super) fn wanted_source(facts: &Facts) -> Result<Result<Source, Problem>, Need> {
    let own = &facts.snapshot.own;
    if let Some(generate) = &own.spec.generate {
        return Ok(Ok(Source::Generate { revision: generate.revision.clone() }));
    }
    if let Some(sha256) = &own.sealed_sha256 {
        return Ok(Ok(Source::Sealed { sha256: sha256.clone() }));
    }
    let Some(from) = &own.spec.value_from else {
        return Ok(Err(Problem::new(
            Reason::InvalidSpec,
            "spec: must have exactly one of value, valueFrom and generate",
        )));
    };
    if !facts.snapshot.peers.ring.is_empty() {
        return Ok(Err(Problem::new(Reason::SourceRing, ring_text(&facts.snapshot.peers.ring))));
    }
    let reference = &from.secret_key_ref;
    match &facts.snapshot.source {
        SourceSeen::Present { uid, resource_version } => Ok(Ok(Source::Secret {
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            key: reference.key.clone(),
        })),
        SourceSeen::Absent => {
            let message = format!("spec.valueFrom: Secret {} does not exist", reference.name);
            Ok(Err(Problem::new(Reason::SourceNotFound, message)))
        }
        SourceSeen::Unsynced | SourceSeen::NotWanted => Err(unlisted(facts)),
    }
}

/// Which ring of values stands in the way.
fn ring_text(ring: &[String]) -> String {
    let upstream = ring.iter().cycle().skip(1);
    let links: Vec<String> =
        ring.iter().zip(upstream).map(|(to, from)| format!("{to} takes its value from {from}")).collect();
    let more = links.len().saturating_sub(MAX_LINKS);
    let shown = links[..links.len() - more].join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("spec.valueFrom: the sources form a ring: {shown}{more}; give one of them another source or target")
}

/// The end of a pass that needs what the watch on sources has not listed yet. Its first list wakes every object that waits
/// for it, so in most cases nothing needs to be reported.
fn unlisted(facts: &Facts) -> Need {
    if facts.snapshot.failures < UNLISTED {
        return Need::Retry;
    }
    let message = "spec.valueFrom: the operator cannot list or watch the Secrets of this namespace yet";
    Need::Report(Verdict::Transient(Problem::new(Reason::ApiUnavailable, message)))
}

/// The incoming value, read in this pass from the source that the spec wants now.
pub(super) fn incoming<'w>(
    facts: &'w Facts,
    source: &Source,
) -> Result<(&'w Source, Result<&'w Arc<Plaintext>, Problem>), Need> {
    let fits = |read: &Source| match (read, source) {
        // The live Secret may be newer than the cache; the key is what the spec says.
        (Source::Secret { key, .. }, Source::Secret { key: wanted, .. }) => key == wanted,
        _ => read == source,
    };
    match &facts.learned.incoming {
        Some(incoming) if fits(&incoming.source) => {
            Ok((&incoming.source, incoming.value.as_ref().map_err(Clone::clone)))
        }
        _ if let Some(rejected) = facts.snapshot.rejected.as_ref().filter(|rejected| rejected.source == *source) => {
            Ok((&rejected.source, Err(rejected.problem.clone())))
        }
        _ => Err(Need::Read(match source {
            Source::Generate { .. } => Read::Generate,
            Source::Sealed { .. } => Read::Spec,
            Source::Secret { .. } => Read::Source,
        })),
    }
}
