//! Kubeconfigs, environments and flags: the same server, user and namespace as kubectl, or an error as kubectl.

use std::sync::Arc;

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, Ran, command,
    corpus::{Case, World, case},
    finish, kubectl,
    recorder::{Authority, Recorded, Records, Server},
};

/// How many cases; each starts kubectl and the plugin once.
const CASES: u64 = 480;
/// How many at once.
const WORKERS: u64 = 4;

/// What a program did.
#[derive(Debug, PartialEq)]
enum Did {
    Sent(Recorded),
    Refused,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_server_user_and_namespace_as_kubectl() {
    let kubectl = kubectl().await;
    let first: u64 = std::env::var("CASE").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let cases = if std::env::var_os("CASE").is_some() { 1 } else { CASES };
    let workers: Vec<_> = (0..WORKERS.min(cases))
        .map(|worker| {
            let kubectl = kubectl.clone();
            tokio::spawn(async move {
                let records = Records::default();
                let (world, _servers) = world(&records).await;
                let (mut sent, mut wrong) = (0, Vec::new());
                for seed in (first + worker..first + cases).step_by(usize::try_from(WORKERS).unwrap()) {
                    let folder = Folder::new();
                    let case = case(&world, &folder, seed);
                    let (theirs, their_run) = run(&kubectl, &KUBECTL_REQUEST, &case, &folder, &records).await;
                    let (ours, our_run) = run(PLUGIN.as_ref(), &PLUGIN_REQUEST, &case, &folder, &records).await;
                    sent += u64::from(matches!(ours, Did::Sent(_)));
                    if !agree(&theirs, &their_run, &ours) {
                        wrong.push(format!(
                            "CASE={seed}: {case:?}\nkubectl: {theirs:?}\n  {}\nmsec: {ours:?}\n  {}",
                            their_run.err, our_run.err
                        ));
                    }
                    no_secret(&our_run, seed);
                }
                (sent, wrong)
            })
        })
        .collect();
    let (mut sent, mut wrong) = (0, Vec::new());
    for worker in workers {
        let (more, differences) = worker.await.unwrap();
        sent += more;
        wrong.extend(differences);
    }
    println!("{cases} cases, of which {sent} sent a request; {} differ", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // The corpus must hold both kinds.
    assert!(cases == 1 || (sent > cases / 5 && sent < cases * 4 / 5), "{sent} of {cases}");
}

/// Two servers over TLS, one without, and a trap where a service account's cluster would be.
async fn world(records: &Records) -> (World, Vec<Server>) {
    let (authority, unrelated) = (Authority::new(), Authority::new());
    let own = authority.server(&["127.0.0.1", "api.example"]);
    let servers = vec![
        Server::tls("one", &authority, &own, records).await,
        Server::tls("two", &authority, &own, records).await,
        Server::plain("plain", records).await,
    ];
    let urls = [
        format!("https://{}", servers[0].address),
        format!("https://{}", servers[1].address),
        format!("http://{}", servers[2].address),
    ];
    let alice = authority.user("alice");
    (World { authority, unrelated, alice, urls }, servers)
}

async fn run(
    program: &std::path::Path,
    request: &[&str],
    case: &Case,
    folder: &Folder,
    records: &Records,
) -> (Did, Arc<Ran>) {
    records.take();
    let mut command = command(program, folder.path());
    command.args(request).args(&case.flags).envs(case.env.iter().map(|(name, value)| (name, value)));
    let ran = finish(command).await;
    let mut sent = records.take();
    assert!(!ran.is_ok, "every request is refused: {ran:?}");
    assert!(sent.len() <= 1, "{request:?} sends one request: {sent:?}");
    (sent.pop().map_or(Did::Refused, Did::Sent), Arc::new(ran))
}

/// Whether both did the same. kubectl asks on standard input, which ends here, for a user's name and password if it has no
/// credentials; we never do, and send the request without, as other programs with client-go.
fn agree(theirs: &Did, their_run: &Ran, ours: &Did) -> bool {
    if *theirs == Did::Refused && their_run.err == "error: EOF\n" {
        return match ours {
            Did::Sent(sent) => sent.authorization.is_none() && sent.certificate.is_none(),
            Did::Refused => true,
        };
    }
    theirs == ours
}

/// No error repeats a credential.
#[track_caller]
fn no_secret(ran: &Ran, seed: u64) {
    for secret in ["inline-", "file-line-", "exec-0", "exec-1", "exec-2", "PRIVATE KEY", "fl ag"] {
        assert!(!ran.err.contains(secret), "CASE={seed}: {}", ran.err);
    }
}
