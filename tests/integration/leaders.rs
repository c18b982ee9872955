//! Several replicas, of which one leads: how it hands over, and that no other one writes meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod frozen;
mod terms;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use managed_secrets::run::RunError;
use managed_secrets_api::keys;
use managed_secrets_engine::{
    client,
    lease::{self, Durations, Lost},
};
use serde_json::json;
use testkit::{Operator, poll};
use tokio::task::JoinSet;

use super::{
    admission::{self, Premises},
    objects::Site,
    operator::{Fault, PATIENCE, Running, Setup, Shared, Tap},
    program::PROGRAM,
};

/// How many changes of leader are forced; `make leader-changes` forces more of them.
const CHANGES: &str = "LEADER_CHANGES";
/// How many in `make test`.
const FEW: usize = 20;
/// Requests of the controller that can be on their way at once: its workers, its events and the public key.
const WORKERS: usize = 8 + 2;
/// Objects that are edited without end while the leaders change, each by a task of its own.
const OBJECTS: usize = 4;

/// One installation whose replicas are processes.
struct Replicas {
    premises: Premises,
    kubeconfig: PathBuf,
    leases: Api<Lease>,
}

impl Replicas {
    async fn new(purpose: &str) -> Self {
        let premises = Premises::new(purpose).await;
        let access = premises.access().await;
        let kubeconfig = access.kubeconfig_for(&premises.operator_namespace, keys::OPERATOR_NAME).await.unwrap();
        let leases = Api::namespaced(premises.site.client.clone(), &premises.operator_namespace);
        Self { premises, kubeconfig, leases }
    }

    /// Starts a process that competes under this name.
    async fn start(&self, name: &str, flags: &[&str]) -> Operator {
        let own = format!("--operator-namespace={}", self.premises.operator_namespace);
        let served = format!("--namespace={}", self.premises.site.namespace);
        let arguments = [&[own.as_str(), &served, "--leader-elect"], flags].concat();
        let plane = admission::control_plane().await;
        Operator::start_with(plane, PROGRAM, &self.kubeconfig, &arguments, &[("POD_NAME", name)]).await.unwrap()
    }

    /// The name of the present leader.
    async fn leader(&self) -> Option<String> {
        let lease = self.leases.get_opt(keys::OPERATOR_NAME).await.unwrap()?;
        Some(lease.spec?.holder_identity?.split_once('_').expect("name and uuid").0.to_owned())
    }

    /// Waits until this one leads. Returns when that was.
    async fn leads(&self, name: &str) -> Instant {
        poll(&format!("{name} to lead"), PATIENCE, || async {
            Ok((self.leader().await.as_deref() == Some(name)).then(Instant::now))
        })
        .await
        .unwrap()
    }

    /// Waits until this one has seen who leads.
    async fn stands_by(&self, replica: &Operator) {
        poll("a replica to stand by", PATIENCE, || async { Ok(replica.log()?.contains("standing by").then_some(())) })
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_after_sigterm_and_after_sigkill() {
    let replicas = Replicas::new("leaders").await;
    let site = &replicas.premises.site;
    let apply = async |name: &str| {
        site.apply(name, json!({"name": name, "generate": {}})).await;
        site.served(name).await;
    };
    let first = replicas.start("first", &[]).await;
    replicas.leads("first").await;
    let second = replicas.start("second", &[]).await;
    replicas.stands_by(&second).await;
    apply("one").await;

    let began = Instant::now();
    let (ended, led) = tokio::join!(first.stop(), replicas.leads("second"));
    let handed_over = led - began;
    assert_eq!(ended.unwrap(), 0);
    apply("two").await;

    let third = replicas.start("third", &[]).await;
    replicas.stands_by(&third).await;
    let began = Instant::now();
    second.kill().await.unwrap();
    let taken = replicas.leads("third").await - began;
    apply("three").await;
    println!("another replica leads {handed_over:.1?} after SIGTERM, and {taken:.1?} after SIGKILL");
    assert!(handed_over < Duration::from_secs(2), "{handed_over:?}");
    assert!(taken < Duration::from_secs(15 + 5), "{taken:?}");

    assert_eq!(third.stop().await.unwrap(), 0);
    assert_eq!(replicas.leader().await, None, "the last one released the lease");
}

/// How a change of leader is forced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// It is told to stop.
    Stop,
    /// It is killed.
    Kill,
    /// It is frozen, and wakes up when another one leads.
    Freeze,
}

/// Changes that keep the leader busy: a new description each time that it has answered the one before. Faster ones would leave
/// it no time for an answer on a busy machine: a status is written only over the version of the object that it describes.
async fn edit(site: Site, object: String) {
    for number in 0.. {
        let patch = Patch::Merge(json!({"spec": {"description": format!("edit {number}")}}));
        let edited = site.objects().patch(&object, &PatchParams::default(), &patch).await.unwrap();
        site.until(&object, "an answer to an edit", |now| {
            now.status.as_ref().is_some_and(|status| status.observed_generation >= edited.metadata.generation)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn never_two_replicas_write_while_leaders_stop_die_and_freeze() {
    const FLAGS: [&str; 3] =
        ["--leader-elect-lease-duration=8", "--leader-elect-renew-deadline=6", "--leader-elect-retry-period=1"];
    let changes = std::env::var(CHANGES).map_or(FEW, |text| text.parse().expect("a number"));
    let replicas = Replicas::new("changes").await;
    let site = &replicas.premises.site;
    let control_plane = admission::control_plane().await;
    let mark = control_plane.audit_mark().await.unwrap();
    let began = Instant::now();
    for number in 0..OBJECTS {
        site.apply(&format!("object-{number}"), json!({"name": format!("OBJECT_{number}"), "generate": {}})).await;
    }
    let mut leader = replicas.start("r0", &FLAGS).await;
    replicas.leads("r0").await;
    let mut standby = replicas.start("r1", &FLAGS).await;
    replicas.stands_by(&standby).await;
    let mut editing: JoinSet<()> = (0..OBJECTS).map(|number| edit(site.clone(), format!("object-{number}"))).collect();
    let mut frozen = 0;
    for change in 0..changes {
        let present = format!("r{change}");
        let manner = [Manner::Stop, Manner::Freeze, Manner::Kill, Manner::Stop, Manner::Freeze][change % 5];
        // It has work to do at this moment: it has answered an edit that came after it took the lead.
        let edited = site.get("object-0").await.metadata.generation;
        site.until("object-0", "the leader at work", |object| {
            object.status.as_ref().is_some_and(|status| status.observed_generation > edited)
        })
        .await;
        assert!(editing.try_join_next().is_none(), "an edit failed");
        assert_eq!(replicas.leader().await, Some(present.clone()), "{manner:?}");
        let next = format!("r{}", change + 1);
        match manner {
            Manner::Stop => assert_eq!(leader.stop().await.unwrap(), 0),
            Manner::Kill => leader.kill().await.unwrap(),
            Manner::Freeze => {
                frozen += 1;
                leader.pause().unwrap();
                replicas.leads(&next).await;
                leader.resume().unwrap();
                assert_ne!(leader.exit_code().await.unwrap(), 0);
                let log = leader.log().unwrap();
                assert!(log.contains("lost the leadership"), "{log}");
            }
        }
        replicas.leads(&next).await;
        leader = std::mem::replace(&mut standby, replicas.start(&format!("r{}", change + 2), &FLAGS).await);
        replicas.stands_by(&standby).await;
    }
    editing.shutdown().await;
    assert_eq!((leader.stop().await.unwrap(), standby.stop().await.unwrap()), (0, 0));
    let requests = control_plane.requests_since(mark).await.unwrap();
    let terms = terms::of(&requests, &replicas.premises.operator_namespace);
    let writes = terms::writes(&requests, &site.namespace, &replicas.premises.operator_namespace);
    let outside: Vec<_> = writes.iter().filter(|write| !terms::contain(&terms, write)).collect();
    println!(
        "{changes} forced changes of leader in {:.0?}: {} terms, {} writes; {} requests of frozen leaders were on their way and \
         came after their term, {} of them were carried out",
        began.elapsed(),
        terms.len(),
        writes.len(),
        outside.len(),
        outside.iter().filter(|write| write.stored).count(),
    );
    let overwriting = terms::overwriting(&terms, &writes);
    assert!(overwriting.is_empty(), "{overwriting:#?}\nof {terms:#?}");
    // What is on its way is at most a request of each worker.
    assert!(outside.len() <= frozen * WORKERS, "{outside:#?}\nof {terms:#?}");
    assert!(terms.len() > changes, "{terms:#?}");
    let idle = terms.iter().take(changes).filter(|term| !writes.iter().any(|write| term.contains(write))).count();
    assert_eq!(idle, 0, "every leader wrote");
}

/// How the API server answers requests for the Lease.
const GOOD: u8 = 0;
const CUT: u8 = 1;
const HANGS: u8 = 2;

/// A replica in this process, and a switch for its requests for the Lease.
fn in_process(premises: &Premises, identity: &str) -> (Running, Arc<AtomicU8>, Arc<Tap>) {
    let (setup, switch, tap) = replica(premises, identity);
    (setup.start_with(premises.config.clone()), switch, tap)
}

/// The same, to be started.
fn replica(premises: &Premises, identity: &str) -> (Setup, Arc<AtomicU8>, Arc<Tap>) {
    let seconds = Duration::from_secs;
    let election = lease::Options {
        namespace: premises.operator_namespace.clone(),
        name: keys::OPERATOR_NAME.to_owned(),
        identity: identity.to_owned(),
        durations: Durations::new(seconds(8), seconds(6), seconds(1)).unwrap(),
    };
    let switch = Arc::new(AtomicU8::new(GOOD));
    let manner = Arc::clone(&switch);
    let tap = Tap::new(move |_, _| match manner.load(SeqCst) {
        CUT => Fault::Cut,
        HANGS => Fault::Hang,
        _ => Fault::Pass,
    });
    let clients = client::Options {
        lease_tap: Some(Arc::new(Shared(Arc::clone(&tap)))),
        replica: Some(identity.to_owned()),
        ..client::Options::default()
    };
    (Setup { clients, webhooks: None, election: Some(election), ..premises.setup() }, switch, tap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_survives_a_short_outage_and_ends_in_a_long_one() {
    for outage in [CUT, HANGS] {
        let premises = Premises::new("outage").await;
        let site = &premises.site;
        let leases = Api::<Lease>::namespaced(site.client.clone(), &premises.operator_namespace);
        let spec = async || leases.get(keys::OPERATOR_NAME).await.unwrap().spec.unwrap();
        let (first, switch, tap) = in_process(&premises, "first");
        site.apply("one", json!({"name": "ONE", "generate": {}})).await;
        site.served("one").await;
        let (second, ..) = in_process(&premises, "second");

        switch.store(outage, SeqCst);
        // One try meets the outage, and the next one does not.
        let tries = tap.seen().len();
        poll("a try", PATIENCE, || async { Ok((tap.seen().len() > tries).then_some(())) }).await.unwrap();
        let before = spec().await.renew_time;
        switch.store(GOOD, SeqCst);
        let renewed = async || {
            let spec = spec().await;
            Ok((spec.renew_time != before).then_some(spec))
        };
        let spec_after = poll("a renewal", PATIENCE, renewed).await.unwrap();
        assert_eq!((spec_after.holder_identity.as_deref(), spec_after.lease_transitions), (Some("first"), Some(0)));

        switch.store(outage, SeqCst);
        let ended = tokio::time::timeout(PATIENCE, first.ended()).await.expect("an end");
        let Err(RunError::Lost(Lost::NotRenewed { .. })) = ended else { panic!("{ended:?}") };
        poll("the other to lead", PATIENCE, || async {
            Ok((spec().await.holder_identity.as_deref() == Some("second")).then_some(()))
        })
        .await
        .unwrap();
        site.apply("two", json!({"name": "TWO", "generate": {}})).await;
        site.served("two").await;
        second.stop().await;
        assert_eq!(spec().await.holder_identity, None);
    }
}
