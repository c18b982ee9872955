//! Retains the other certificates of a bundle: earlier ones, or those that another replica wants.
//!
//! A certificate in a folder comes with the bundle to trust, and replicas see a new one up to a minute apart. If each
//! replica wrote only its own bundle, it would remove the bundles of the others, and the API server would skip a replica
//! that serves the other certificate. So every present certificate stays for a time. This also holds after a restart,
//! because the configuration itself stores the certificates.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Certificates (DER) of one configuration that are not wanted any more, and when the operator noticed it.
#[derive(Debug, Default)]
pub struct RetainedBundles(HashMap<Vec<u8>, Timestamp>);

impl RetainedBundles {
    /// Returns a bundle of `wanted` and, for `patience`, the other certificates of `present`. Returns `present` itself if it
    /// has all of them.
    pub fn join(&mut self, wanted: &str, present: &str, now: Timestamp, patience: Duration) -> String {
        let (wanted_ones, present_ones) = (certificates(wanted), certificates(present));
        let spare: Vec<_> = present_ones.iter().filter(|one| !wanted_ones.contains(one)).collect();
        self.0.retain(|one, _| spare.contains(&one));
        let mut kept = String::new();
        let mut is_over = false;
        for one in spare {
            let since = *self.0.entry(one.clone()).or_insert(now);
            if end(since, patience) > now {
                kept.push_str(&pem(one));
            } else {
                is_over = true;
            }
        }
        if !is_over && wanted_ones.iter().all(|one| present_ones.contains(one)) {
            // The order or the format is no reason to write: replicas would overwrite each other without end.
            return present.to_owned();
        }
        let separator = if wanted.ends_with('\n') { "" } else { "\n" };
        format!("{wanted}{separator}{kept}")
    }

    /// Returns when the next of them may be removed.
    #[must_use]
    pub fn next(&self, patience: Duration) -> Option<Timestamp> {
        self.0.values().map(|since| end(*since, patience)).min()
    }
}

fn end(since: Timestamp, patience: Duration) -> Timestamp {
    since.saturating_add(patience).unwrap_or(Timestamp::MAX)
}

/// Returns the certificates of a bundle, without its other content.
fn certificates(bundle: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).map(|one| one.to_vec()).collect()
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn other_certificates_stay_for_a_time_and_wanted_ones_stay() {
        let (old, new) = (pem(b"old"), pem(&[7; 200]));
        let mut retained = RetainedBundles::default();
        assert_eq!(retained.join(&old, "", at(0), PATIENCE), old);
        assert_eq!(retained.next(PATIENCE), None);
        let both = retained.join(&new, &old, at(1), PATIENCE);
        assert_eq!(certificates(&both), [vec![7; 200], b"old".to_vec()]);
        assert_eq!(retained.next(PATIENCE), Some(at(61)));
        assert_eq!(retained.join(&new, &both, at(60), PATIENCE), both);
        assert_eq!(retained.join(&new, &both, at(61), PATIENCE), new);
        assert_eq!(retained.join(&new, &new, at(62), PATIENCE), new);
        assert_eq!(retained.next(PATIENCE), None, "a removed certificate is not retained");
    }

    /// Two replicas have different folders: the second one adds its certificates, and then neither has anything to write.
    #[test]
    fn replicas_do_not_remove_the_bundles_of_each_other() {
        let (old, new) = (pem(b"old"), pem(b"new").replace('\n', "\r\n"));
        let (mut behind, mut ahead) = (RetainedBundles::default(), RetainedBundles::default());
        let told = ahead.join(&new, &old, at(0), PATIENCE);
        assert_eq!(behind.join(&old, &told, at(1), PATIENCE), told);
        assert_eq!(ahead.join(&new, &told, at(2), PATIENCE), told);
        // If another writer replaces them, both come back.
        let repaired = behind.join(&old, &pem(b"another"), at(3), PATIENCE);
        let repaired = ahead.join(&new, &repaired, at(4), PATIENCE);
        assert_eq!(behind.join(&old, &repaired, at(5), PATIENCE), repaired);
        assert!(
            certificates(&repaired).contains(&b"new".to_vec()) && certificates(&repaired).contains(&b"old".to_vec())
        );
    }

    #[test]
    fn a_bundle_may_end_without_a_line_break_and_have_comments() {
        let (old, new) = (pem(b"old"), pem(b"new"));
        let both = RetainedBundles::default().join(&format!("# mine\n{}", new.trim_end()), &old, at(0), PATIENCE);
        assert_eq!(certificates(&both), [b"new".to_vec(), b"old".to_vec()]);
        assert_eq!(RetainedBundles::default().join(&new, "none", at(0), PATIENCE), new);
    }
}
