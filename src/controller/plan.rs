//! The vocabulary of decisions: what a pass can do next, why, and what it says of its object. No logic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    record::Unopened,
    template::{self, RenderError, Rendered},
};
use managed_secrets_crypto::{Plaintext, mse1::Record};
use zeroize::Zeroizing;

use super::{record::RecordMeta, view::SecretView};

/// One step of a pass.
#[derive(Debug)]
pub(super) enum Step {
    /// Find something out.
    Read(Read),
    /// Change something.
    Write(Box<Write>),
    /// Nothing is left to do now.
    Finish(Finish),
}

impl From<Write> for Step {
    fn from(write: Write) -> Self {
        Self::Write(Box::new(write))
    }
}

/// Something to find out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// The ManagedSecret, live, with its sealed text.
    Spec,
    /// The source Secret of `valueFrom`, live.
    Source,
    /// A fresh value from the operating system's randomness.
    Generate,
    /// A Secret that may be record or target, live.
    Secret(String),
}

/// What a decision lacks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Need {
    /// A fact that a read finds out.
    Read(Read),
    /// Newer caches: the pass is tried again, with its backoff.
    Retry,
    /// Something that no read of this pass gives. The status says it.
    Report(Verdict),
}

impl Need {
    /// A Secret, read live.
    #[must_use]
    pub(super) fn secret(name: &str) -> Self {
        Self::Read(Read::Secret(name.to_owned()))
    }
}

/// What a write expects to find.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Slot {
    /// No object of that name: a create-only write.
    Free,
    /// This very object at this very version.
    Over {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

impl Slot {
    /// Over an object that is known.
    #[must_use]
    pub(super) fn over(view: &SecretView) -> Self {
        Self::Over { uid: view.uid.clone(), resource_version: view.resource_version.clone() }
    }
}

/// What a record holds: its bytes, and the value that they open to.
#[derive(Clone)]
pub struct Contents {
    /// The MSE1 bytes.
    pub bytes: Arc<Record>,
    /// The value.
    pub value: Arc<Plaintext>,
}

/// Where a record's bytes come from.
#[derive(Clone)]
pub(super) enum Bytes {
    /// Those of the present record, as they are.
    Keep(Contents),
    /// The same where they do not open, for this reason, and an earlier version is delivered.
    Unopened(Arc<Record>, Unopened),
    /// The present record's value, sealed again under the live uid at the same version.
    Reseal(Arc<Plaintext>),
    /// The source's value.
    Incoming(Arc<Plaintext>),
    /// The value of the target that outlived its record.
    FromTarget(Arc<Plaintext>),
}

/// Only the origin: neither a value nor its ciphertext belongs in a log.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep(_) => "Keep",
            Self::Unopened(..) => "Unopened",
            Self::Reseal(_) => "Reseal",
            Self::Incoming(_) => "Incoming",
            Self::FromTarget(_) => "FromTarget",
        })
    }
}

/// A write of a record.
#[derive(Clone, Debug)]
pub(super) struct RecordWrite {
    /// What must be there.
    pub slot: Slot,
    /// What it will say.
    pub meta: RecordMeta,
    /// Its bytes.
    pub bytes: Bytes,
    /// The bytes of the earlier values that it keeps, by version. One that was lost is missing.
    pub kept: BTreeMap<u64, Arc<Record>>,
    /// The data keys that are to hold nothing: they hold values of which the metadata does not speak, or others than it says.
    pub emptied: BTreeSet<String>,
    /// Whether Kubernetes collects it with the ManagedSecret.
    pub owner_reference: bool,
    /// Whether what is there is known not to be immutable.
    pub mutable: bool,
    /// The write of the target that follows, where it is known already: the API server is asked about both at once.
    pub then: Option<Box<TargetWrite>>,
}

/// The plaintexts that a target delivers.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// That of the version which is delivered.
    pub value: Arc<Plaintext>,
    /// The previous one, and its key, during the overlap.
    pub previous: Option<(String, Arc<Plaintext>)>,
}

impl Values {
    /// One value, and no previous one.
    #[must_use]
    pub(super) fn of(value: &Arc<Plaintext>) -> Self {
        Self { value: Arc::clone(value), previous: None }
    }
}

/// What a target delivers.
#[derive(Clone, Debug)]
pub(super) struct TargetContent {
    /// The key of the value.
    pub key: String,
    /// What is delivered.
    pub values: Values,
    /// The texts of the template, by their keys; empty where there is none.
    pub template: BTreeMap<String, String>,
}

impl TargetContent {
    /// The data of the Secret.
    pub(super) fn data(&self) -> Result<BTreeMap<String, Rendered>, Undeliverable> {
        let mut data = template::data(&self.key, &self.values.value, &self.template).map_err(Undeliverable)?;
        if let Some((key, previous)) = &self.values.previous {
            data.insert(key.clone(), Zeroizing::new(previous.as_bytes().to_vec()));
        }
        Ok(data)
    }
}

/// Why a template gives no data.
#[derive(Debug)]
pub(super) struct Undeliverable(RenderError);

impl Undeliverable {
    /// What the status says of the target of this name.
    pub(super) fn problem(&self, target: &str) -> Problem {
        let reason = match self.0 {
            // Where the CRD is older than this program: the spec breaks a rule, and a pass ends before it renders.
            RenderError::Syntax { .. } => Reason::InvalidSpec,
            RenderError::TooLarge => Reason::TemplateTooLarge,
        };
        Problem::new(
            reason,
            format!("target Secret {target}: spec.target.template: {}; what is delivered stays", self.0),
        )
    }
}

/// A write of a target.
#[derive(Clone, Debug)]
pub(super) struct TargetWrite {
    /// What must be there.
    pub slot: Slot,
    /// Name of the Secret.
    pub name: String,
    /// What it delivers.
    pub content: TargetContent,
    /// The record's version that has it.
    pub version: u64,
    /// The type; absent for an adopted Secret, whose type is not ours to own.
    pub type_: Option<String>,
    /// All labels of ours.
    pub labels: BTreeMap<String, String>,
    /// All annotations of ours.
    pub annotations: BTreeMap<String, String>,
    /// Whether Kubernetes collects it with the ManagedSecret.
    pub owner_reference: bool,
    /// Only the cache shows what is there. A refusal may mean another type, or immutability: a live read tells.
    pub from_cache: bool,
    /// Keys that an adopted Secret had before, and that are not written any more: they stay.
    pub found_keys: Vec<String>,
    /// The field manager that wrote what is there: an event about drift names it.
    pub other_manager: Option<String>,
}

/// Something to change.
#[derive(Debug)]
pub(super) enum Write {
    /// A record.
    Record(RecordWrite, Why),
    /// A target.
    Target(TargetWrite, Why),
    /// Give up our key and labels on this adopted Secret.
    Release(SecretView),
    /// Delete this Secret, which is ours.
    Delete(SecretView, Why),
    /// Delete this target, whose type is another, if the API server would accept the one that is created after it.
    Retype(SecretView, TargetWrite),
    /// The status.
    Status(ManagedSecretStatus),
}

impl Write {
    /// Repairs what another client changed: a Secret that exists, and differs from what the operator wrote.
    #[must_use]
    pub(super) fn is_repair(&self) -> bool {
        match self {
            Self::Record(record, why) => *why == Why::OutOfStep && record.slot != Slot::Free,
            Self::Target(target, why) => *why == Why::Drift && target.slot != Slot::Free,
            Self::Release(_) | Self::Delete(..) | Self::Retype(..) | Self::Status(_) => false,
        }
    }
}

/// Why a write happens: for logs and events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// A secret that has no record yet.
    New,
    /// A new value.
    NewValue,
    /// A new name.
    Rename,
    /// The spec moved, but neither name nor value.
    SpecChanged,
    /// A retained record is taken over, or one restored from a backup is bound to its object again.
    TakenOver,
    /// The record was lost and is rebuilt.
    Rebuilt,
    /// The source is another, or was changed, and gives the same value: the record names it as it is now.
    SourceMoved,
    /// Another version is delivered: fewer earlier values are kept, or one of them is still to be beside it.
    HistoryChanged,
    /// Another client changed it, or an earlier pass ended before its status was written.
    OutOfStep,
    /// Another client changed, unlabelled or deleted the target.
    Drift,
    /// The target has another type.
    NewType,
    /// It moved to another place.
    Moved,
    /// The overlap is over: the previous value goes.
    OverlapEnded,
    /// It is what an interrupted rename left.
    Leftover,
    /// Admission control of others changed it on its way, so it is not what was written.
    Altered,
}

/// The end of a pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Finish {
    /// Look again after this time.
    pub after: Option<Duration>,
    /// The caches are behind, or the world moved: count it as a failure, with its backoff.
    pub retry: bool,
}

impl Finish {
    /// Nothing is left to do until something happens.
    pub(super) const DONE: Self = Self { after: None, retry: false };
    /// The caches are behind, or the world moved.
    pub(super) const RETRY: Self = Self { after: None, retry: true };

    /// Nothing is left to do until then.
    #[must_use]
    pub(super) const fn after(after: Duration) -> Self {
        Self { after: Some(after), retry: false }
    }
}

/// Why something that a user gave cannot be used: reason and message for a condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The condition's reason.
    pub reason: Reason,
    /// The condition's message; never a value or a part of one.
    pub message: String,
}

impl Problem {
    /// A problem with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a pass came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Served and up to date; the message says where.
    Served(String),
    /// On the way; nothing is wrong.
    Working(Problem),
    /// Something passing, such as an API server that does not answer.
    Transient(Problem),
    /// Another object may heal it.
    Pending(Problem),
    /// A person is needed.
    Terminal(Problem),
    /// `spec.suspend` is true.
    Suspended,
}

impl Verdict {
    /// The graver of two; of two alike, one with both messages under the first one's reason.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let rank = |verdict: &Self| match verdict {
            Self::Served(_) => 0,
            Self::Working(_) => 1,
            Self::Transient(_) => 2,
            Self::Pending(_) => 3,
            Self::Terminal(_) => 4,
            Self::Suspended => 5,
        };
        let (mut graver, lesser) = if rank(&self) >= rank(&other) { (self, other) } else { (other, self) };
        if let (Some(graver), Some(lesser)) = (graver.problem_mut(), lesser.problem()) {
            graver.message = format!("{}; {}", graver.message, lesser.message);
        }
        graver
    }

    /// The problem, where there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Served(_) | Self::Suspended => None,
            Self::Working(p) | Self::Transient(p) | Self::Pending(p) | Self::Terminal(p) => Some(p),
        }
    }

    fn problem_mut(&mut self) -> Option<&mut Problem> {
        match self {
            Self::Served(_) | Self::Suspended => None,
            Self::Working(p) | Self::Transient(p) | Self::Pending(p) | Self::Terminal(p) => Some(p),
        }
    }
}
