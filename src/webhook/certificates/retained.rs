//! What a configuration trusts besides: certificates that were wanted a moment ago, or that another replica wants.
//!
//! A certificate in a folder comes with the bundle to trust, and replicas see it change up to a minute apart. If each of
//! them wrote its own bundle and no more, they would take each other's away, and whoever serves the other certificate
//! would be skipped. So what is there stays for a while, whoever put it there; and after a restart as well, for nothing
//! of it is in memory alone.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Certificates (DER) of one configuration that are not wanted, and when that was noticed.
#[derive(Debug, Default)]
pub struct RetainedBundles(HashMap<Vec<u8>, Timestamp>);

impl RetainedBundles {
    /// The bundle that holds `wanted`, and for `patience` what `present` holds besides: `present` itself, if it does.
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
            // Not written in another order, or another form, for that: replicas would do so for ever.
            return present.to_owned();
        }
        let separator = if wanted.ends_with('\n') { "" } else { "\n" };
        format!("{wanted}{separator}{kept}")
    }

    /// When the next of them has been there for long enough.
    #[must_use]
    pub fn next(&self, patience: Duration) -> Option<Timestamp> {
        self.0.values().map(|since| end(*since, patience)).min()
    }
}

fn end(since: Timestamp, patience: Duration) -> Timestamp {
    since.saturating_add(patience).unwrap_or(Timestamp::MAX)
}

/// The certificates of a bundle; what is none is left out.
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
    fn what_is_there_stays_for_a_while_and_the_wanted_for_good() {
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
        assert_eq!(retained.next(PATIENCE), None, "what is gone is forgotten");
    }

    /// Two replicas whose folders differ: whoever comes second adds his, and then neither has anything to write.
    #[test]
    fn replicas_do_not_take_each_others_away() {
        let (old, new) = (pem(b"old"), pem(b"new").replace('\n', "\r\n"));
        let (mut behind, mut ahead) = (RetainedBundles::default(), RetainedBundles::default());
        let told = ahead.join(&new, &old, at(0), PATIENCE);
        assert_eq!(behind.join(&old, &told, at(1), PATIENCE), told);
        assert_eq!(ahead.join(&new, &told, at(2), PATIENCE), told);
        // And when somebody has put his own in their place, both are there again.
        let mended = behind.join(&old, &pem(b"foreign"), at(3), PATIENCE);
        let mended = ahead.join(&new, &mended, at(4), PATIENCE);
        assert_eq!(behind.join(&old, &mended, at(5), PATIENCE), mended);
        assert!(certificates(&mended).contains(&b"new".to_vec()) && certificates(&mended).contains(&b"old".to_vec()));
    }

    #[test]
    fn a_bundle_may_end_without_a_line_break_and_hold_words() {
        let (old, new) = (pem(b"old"), pem(b"new"));
        let both = RetainedBundles::default().join(&format!("# mine\n{}", new.trim_end()), &old, at(0), PATIENCE);
        assert_eq!(certificates(&both), [b"new".to_vec(), b"old".to_vec()]);
        assert_eq!(RetainedBundles::default().join(&new, "none", at(0), PATIENCE), new);
    }
}
