//! Certificate authorities, the certificates that they issue, and when each one is used. Pure, except for randomness.
//!
//! ```text
//!  first    ├────────── issues ──────────┼─ overlap ─┼─ its last certificate expires ──┤ removed
//!  second                                ├─ known ───┼────────── issues ───────── …
//!                                     2/3 of the first's life
//! ```
//!
//! The operator publishes a new authority ([`Document::bundle`], [`Document::paths`]) some time before the authority issues
//! certificates. An old authority stays published until no certificate of it is valid. So the API server always trusts the
//! certificate of every replica, and every replica answers on the path that the API server calls. All of this follows from
//! the dates in the document, so replicas agree without communication if their clocks differ by less than the overlap.

use std::time::Duration;

use jiff::Timestamp;
use managed_secrets_api::limits::AUTHORITY_DAYS;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The format name in a stored document.
const FORMAT: &str = "MSW1";
/// Random bytes of a secret path.
const PATH_BYTES: usize = 32;
/// Certificates are valid from this long before their creation, because clocks differ: a clock that is a day ahead creates
/// certificates that API servers accept.
const EARLIER: Duration = Duration::from_secs(25 * 3600);

/// How long authorities and certificates last. Production uses the default.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// A certificate authority, its certificate and its path.
    pub authority: Duration,
    /// A serving certificate.
    pub leaf: Duration,
    /// How long an authority is known before it issues.
    pub overlap: Duration,
}

impl Lifetimes {
    /// Whether every authority is valid until none of its certificates is in use. The next authority is created after two
    /// thirds of the lifetime, and is published for one overlap before it issues. A lagging replica's last certificate needs
    /// one more overlap.
    #[must_use]
    pub fn are_sound(&self) -> bool {
        self.authority / 3 >= self.overlap * 2 + self.leaf
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { authority: AUTHORITY_DAYS * day, leaf: 14 * day, overlap: day / 24 }
    }
}

/// Why no authority or certificate was created.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate library refused.
    #[error("could not create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The operating system gave no randomness.
    #[error("could not read random bytes from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// No authority exists.
    #[error("certificate authority not found")]
    None,
}

/// Every authority in use, as it is stored; the oldest first. Shows no key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Document {
    format: String,
    authorities: Vec<Authority>,
}

/// A certificate authority, and the secret path that goes with it.
#[derive(Clone, Deserialize, Serialize)]
pub struct Authority {
    created: Timestamp,
    /// PEM.
    certificate: String,
    /// PKCS #8 in PEM.
    key: String,
    /// 32 random bytes in hex.
    path: String,
}

/// A serving certificate, in memory only.
pub struct Leaf {
    /// DER of the certificate.
    pub certificate: Vec<u8>,
    /// DER (PKCS #8) of its key.
    pub key: Zeroizing<Vec<u8>>,
    /// When its validity begins.
    pub valid_from: Timestamp,
    /// When a new certificate should replace it.
    pub renew: Timestamp,
}

impl Document {
    /// Parses a stored document. Returns `None` if it has another format, or no authority.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let document: Self = serde_json::from_slice(json).ok()?;
        (document.format == FORMAT && !document.authorities.is_empty()).then_some(document)
    }

    /// Returns the document that must replace `present` now; `None` if nothing has to change.
    pub fn due(present: Option<&Self>, now: Timestamp, lives: Lifetimes) -> Result<Option<Self>, AuthorityError> {
        let mut authorities = present.map(|document| document.authorities.clone()).unwrap_or_default();
        let before = authorities.len();
        // An authority that has expired (the operator was off for a long time, or etcd was restored), or that has a wrong
        // date, issues no trusted certificate: the new authority need not wait for it.
        authorities.retain(|authority| authority.is_of(now, lives));
        // An authority is removed when its successor has issued for longer than the lifetime of a certificate.
        while let [_, second, ..] = authorities.as_slice()
            && second.is_alone_from(lives) <= now
        {
            authorities.remove(0);
        }
        let forgotten = before - authorities.len();
        let is_due = authorities.last().is_none_or(|newest| newest.renewed_at(lives) <= now);
        if is_due {
            authorities.push(Authority::generate(now, lives)?);
        }
        let changed = is_due || forgotten > 0;
        Ok(changed.then(|| Self { format: FORMAT.to_owned(), authorities }))
    }

    /// Returns when [`Document::due`] must be called next, or when another authority starts to issue.
    #[must_use]
    pub fn next(&self, now: Timestamp, lives: Lifetimes) -> Option<Timestamp> {
        let starts = self.authorities.iter().map(|authority| authority.issues_from(lives));
        let ends = self.authorities.iter().skip(1).map(|next| next.is_alone_from(lives));
        let renewal = self.authorities.last().map(|newest| newest.renewed_at(lives));
        starts.chain(ends).chain(renewal).filter(|at| *at > now).min()
    }

    /// Returns the authority that issues now: the newest that was published long enough ago, or else the oldest.
    fn issuer(&self, now: Timestamp, lives: Lifetimes) -> Option<&Authority> {
        let known = self.authorities.iter().rfind(|authority| authority.issues_from(lives) <= now);
        known.or(self.authorities.first())
    }

    /// Returns the path that the API server must call now.
    #[must_use]
    pub fn path(&self, now: Timestamp, lives: Lifetimes) -> &str {
        self.issuer(now, lives).map(|authority| authority.path.as_str()).unwrap_or_default()
    }

    /// Returns every path that the API server may call.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.authorities.iter().map(|authority| authority.path.as_str())
    }

    /// Returns the certificates to trust, in PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// Issues a certificate for these DNS names and IP addresses.
    pub fn issue(&self, names: &[String], now: Timestamp, lives: Lifetimes) -> Result<Leaf, AuthorityError> {
        self.issuer(now, lives).ok_or(AuthorityError::None)?.issue(names, now, lives)
    }
}

impl Authority {
    fn generate(now: Timestamp, lives: Lifetimes) -> Result<Self, AuthorityError> {
        let mut path = [0; PATH_BYTES];
        getrandom::fill(&mut path)?;
        let key = KeyPair::generate()?;
        let certificate = params(now, lives).self_signed(&key)?;
        Ok(Self { created: now, certificate: certificate.pem(), key: key.serialize_pem(), path: hex::encode(path) })
    }

    /// Whether a certificate that it issues now is valid.
    fn is_of(&self, now: Timestamp, lives: Lifetimes) -> bool {
        valid_from(self.created) <= now && later(self.created, lives.authority) > now
    }

    /// Returns when it was published long enough ago to issue.
    fn issues_from(&self, lives: Lifetimes) -> Timestamp {
        later(self.created, lives.overlap)
    }

    /// Returns when no certificate of its predecessor is valid any more.
    fn is_alone_from(&self, lives: Lifetimes) -> Timestamp {
        later(self.issues_from(lives), lives.leaf + lives.overlap)
    }

    /// Returns when the next authority should be created.
    fn renewed_at(&self, lives: Lifetimes) -> Timestamp {
        later(self.created, lives.authority * 2 / 3)
    }

    fn issue(&self, names: &[String], now: Timestamp, lives: Lifetimes) -> Result<Leaf, AuthorityError> {
        let issuer = Issuer::new(params(self.created, lives), KeyPair::from_pem(&self.key)?);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::CommonName, "managed-secrets webhook");
        limit(&mut leaf, now, lives.leaf);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &issuer)?.der().to_vec();
        Ok(Leaf {
            certificate,
            key: Zeroizing::new(key.serialize_der()),
            valid_from: valid_from(now),
            renew: later(now, lives.leaf * 2 / 3),
        })
    }
}

/// Returns the content of an authority's certificate. It depends only on the date, so the key is enough to create the issuer
/// again.
fn params(created: Timestamp, lives: Lifetimes) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("managed-secrets webhook authority {created}"));
    limit(&mut params, created, lives.authority);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Makes a certificate valid from (a little before) `from`.
fn limit(params: &mut CertificateParams, from: Timestamp, life: Duration) {
    // `rcgen` does not export the type of its dates.
    let date =
        |second: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second.try_into().unwrap_or_default());
    params.not_before = date(valid_from(from).as_second());
    // Certificates have whole seconds: rounded up, so that no certificate ends before its stated end.
    let end = later(from, life);
    params.not_after = date(end.as_second() + i64::from(end.subsec_nanosecond() > 0));
}

/// Returns when the validity of a certificate begins that is created at this time.
fn valid_from(created: Timestamp) -> Timestamp {
    created.saturating_sub(EARLIER).unwrap_or(Timestamp::MIN)
}

/// That much later, but within what has a date of four digits.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("created", &self.created).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    };

    use super::*;

    const LIVES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(900),
        leaf: Duration::from_secs(90),
        overlap: Duration::from_secs(10),
    };
    /// Seconds by which a clock is wrong for certain.
    const EARLY_ENOUGH: i64 = 2 * 25 * 3600;
    const NAMES: [&str; 2] = ["managed-secrets.shop.svc", "127.0.0.1"];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn due(present: Option<&Document>, seconds: i64) -> Option<Document> {
        Document::due(present, at(seconds), LIVES).unwrap()
    }

    fn issue(document: &Document, seconds: i64) -> Leaf {
        document.issue(&NAMES.map(str::to_owned), at(seconds), LIVES).unwrap()
    }

    /// Whether a client that trusts `bundle` accepts the certificate for a name at a time.
    fn trusts(bundle: &str, leaf: &Leaf, name: &str, seconds: i64) -> bool {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = CertificateDer::from(leaf.certificate.clone());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let time = Duration::from_secs(at(seconds).as_second().try_into().unwrap());
        verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::since_unix_epoch(time)).is_ok()
    }

    #[test]
    fn what_is_issued_is_trusted_for_its_names_and_its_time() {
        let document = due(None, 0).unwrap();
        let leaf = issue(&document, 100);
        for name in NAMES {
            assert!(trusts(&document.bundle(), &leaf, name, 100), "{name}");
        }
        assert!(trusts(&document.bundle(), &leaf, NAMES[0], 100 - 24 * 3600), "the clock here is a day ahead");
        assert!(!trusts(&document.bundle(), &leaf, NAMES[0], 191));
        assert!(!trusts(&document.bundle(), &leaf, "managed-secrets.prod.svc", 100));
        assert!(!trusts(&due(None, 0).unwrap().bundle(), &leaf, NAMES[0], 100), "another authority of the same date");
        assert_eq!(leaf.renew, at(160));
    }

    #[test]
    fn a_stored_document_is_the_same_and_shows_no_key() {
        let document = due(None, 0).unwrap();
        let json = serde_json::to_vec(&document).unwrap();
        let read = Document::parse(&json).unwrap();
        assert_eq!(read.bundle(), document.bundle());
        assert!(trusts(&document.bundle(), &issue(&read, 1), NAMES[0], 1));
        assert!(!format!("{document:?}").contains("KEY"));
        assert!(!format!("{document:?}").contains(document.path(at(0), LIVES)));
        for other in
            ["", "{}", "null", r#"{"format":"MSW1","authorities":[]}"#, r#"{"format":"MSW2","authorities":[]}"#]
        {
            assert!(Document::parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn paths_are_long_and_differ() {
        let (one, other) = (due(None, 0).unwrap(), due(None, 0).unwrap());
        assert_eq!(one.path(at(0), LIVES).len(), 64);
        assert_ne!(one.path(at(0), LIVES), other.path(at(0), LIVES));
    }

    /// Through three lives of an authority, second by second: a replica that last looked up to an overlap ago serves
    /// what a client with the newest bundle trusts, and knows the path that is called.
    #[test]
    fn at_every_moment_every_replica_is_trusted_and_knows_the_path() {
        let mut document = due(None, 0).unwrap();
        let mut history: Vec<(i64, Document)> = vec![(0, document.clone())];
        let mut leaf = issue(&document, 0);
        let mut leaf_of_slow = issue(&document, 0);
        let mut changes = 0;
        for now in 0..2700 {
            if let Some(next) = due(Some(&document), now) {
                document = next;
                changes += 1;
                history.push((now, document.clone()));
            }
            let overlap = i64::try_from(LIVES.overlap.as_secs()).unwrap();
            let slow = &history.iter().rfind(|(since, _)| *since <= (now - overlap + 1).max(0)).unwrap().1;
            if leaf.renew <= at(now) || now % 7 == 0 {
                leaf = issue(&document, now);
            }
            if leaf_of_slow.renew <= at(now) {
                leaf_of_slow = issue(slow, now);
            }
            for bundle in [document.bundle(), slow.bundle()] {
                assert!(trusts(&bundle, &leaf, NAMES[0], now), "{now}");
                assert!(trusts(&bundle, &leaf_of_slow, NAMES[0], now), "{now}");
            }
            let called = document.path(at(now), LIVES);
            assert!(slow.paths().any(|path| path == called), "{now}");
            assert!(document.paths().any(|path| path == slow.path(at(now), LIVES)), "{now}");
            assert!(document.paths().count() <= 2);
        }
        // A new one every 600 s, each of which ends its predecessor 110 s later.
        assert_eq!(changes, 8);
    }

    #[test]
    fn nothing_is_asked_of_an_authority_that_has_run_out_or_is_of_tomorrow() {
        for now in [901, 5000, -EARLY_ENOUGH] {
            let stale = due(None, 0).unwrap();
            let document = due(Some(&stale), now).unwrap();
            assert_eq!(document.authorities.len(), 1, "{now}");
            assert_ne!(document.bundle(), stale.bundle());
            assert!(trusts(&document.bundle(), &issue(&document, now), NAMES[0], now), "{now}: at once");
            assert!(due(Some(&document), now).is_none());
        }
        // Clocks of replicas differ: that is no reason.
        assert!(due(Some(&due(None, 0).unwrap()), -EARLY_ENOUGH / 2).is_none());
        // A second authority goes on without the first.
        let both = due(Some(&due(None, 0).unwrap()), 600).unwrap();
        let second = due(Some(&both), 901).unwrap();
        assert_eq!(second.authorities.len(), 1);
        assert!(both.bundle().ends_with(&second.bundle()));
    }

    #[test]
    fn certificates_last_as_long_as_is_said_of_them() {
        assert!(Lifetimes::default().are_sound() && LIVES.are_sound());
        assert!(!Lifetimes { leaf: Duration::from_secs(281), ..LIVES }.are_sound());
        let now = at(0).saturating_add(Duration::from_millis(700)).unwrap();
        let document = Document::due(None, now, LIVES).unwrap().unwrap();
        let leaf = document.issue(&NAMES.map(str::to_owned), now, LIVES).unwrap();
        assert!(trusts(&document.bundle(), &leaf, NAMES[0], 91), "until 90.7");
        assert!(!trusts(&document.bundle(), &leaf, NAMES[0], 92));
    }

    #[test]
    fn the_next_date_is_when_something_changes() {
        let mut document = due(None, 0).unwrap();
        let mut dates = Vec::new();
        let mut now = at(0);
        while let Some(next) = document.next(now, LIVES).filter(|next| *next < at(1000)) {
            now = next;
            dates.push(next.as_second() - at(0).as_second());
            if let Some(changed) = Document::due(Some(&document), now, LIVES).unwrap() {
                document = changed;
            }
        }
        assert_eq!(dates, [10, 600, 610, 710]);
    }
}
