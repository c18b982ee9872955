//! The harness itself: what a control plane of the tests can do, and that nothing of it outlives its parent.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use rustix::process::{Pid, test_kill_process};
use testkit::audit::Mark;
use testkit::shared::{self, TestNamespace};
use testkit::{Component, ControlPlane, Error, Guest, Operator, Options, poll};

#[tokio::test]
async fn namespaces_are_deleted_so_the_controller_manager_works() {
    let (namespace, client) = TestNamespace::shared("harness").await.unwrap();
    let namespaces = Api::<Namespace>::all(client);
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    poll("the namespace to go", Duration::from_secs(60), || async {
        Ok(namespaces.get_opt(&namespace.name).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_guest_removes_what_it_made_and_nothing_else() {
    let control_plane = shared::control_plane().await.unwrap();
    let theirs = TestNamespace::create(control_plane, "theirs").await.unwrap();
    let ours = format!("ours-{}", theirs.name);
    let (theirs, ours) = (vec!["namespace", theirs.name.as_str()], vec!["namespace", ours.as_str()]);
    let mut guest = Guest::new(control_plane.access());
    guest.expect_none(std::slice::from_ref(&ours)).await.unwrap();
    for present in [&theirs, &vec!["-f", "crds"]] {
        let refused = guest.expect_none(&[ours.clone(), present.clone()]).await;
        assert!(matches!(refused, Err(Error::Occupied(_))), "{present:?}: {refused:?}");
        guest.create(present).await.unwrap_err();
    }
    guest.create(&ours).await.unwrap();
    guest.leave().await.unwrap();
    let namespaces = Api::<Namespace>::all(control_plane.access().admin_client().await.unwrap());
    assert!(namespaces.get_opt(ours[1]).await.unwrap().is_none());
    assert!(namespaces.get(theirs[1]).await.unwrap().metadata.deletion_timestamp.is_none());
    control_plane.access().kubectl_ok(&["get", "-f", "crds"]).await.unwrap();
}

#[tokio::test]
async fn others_have_only_their_own_rights() {
    let control_plane = shared::control_plane().await.unwrap();
    let namespace = TestNamespace::create(control_plane, "rights").await.unwrap();
    let access = control_plane.access();
    poll("the default service account", Duration::from_secs(60), || async {
        let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(
            access.admin_client().await?,
            &namespace.name,
        );
        Ok(accounts.get_opt("default").await?)
    })
    .await
    .unwrap();
    for client in [
        access.client_as("jane", &["developers"]).await.unwrap(),
        access.client_of(&namespace.name, "default").await.unwrap(),
    ] {
        let answer = Api::<Secret>::namespaced(client, &namespace.name).list(&ListParams::default()).await;
        assert!(matches!(answer, Err(kube::Error::Api(status)) if status.is_forbidden()));
    }
}

#[tokio::test]
async fn kubectl_reads_and_writes() {
    let control_plane = shared::control_plane().await.unwrap();
    let namespace = TestNamespace::create(control_plane, "kubectl").await.unwrap();
    let access = control_plane.access();
    let manifest = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"key": "täxt"}}"#;
    let output = access.kubectl_with_input(&["apply", "-n", &namespace.name, "-f", "-"], manifest).await.unwrap();
    assert!(output.status.success());
    let key =
        access.kubectl_ok(&["get", "cm", "one", "-n", &namespace.name, "-o", "jsonpath={.data.key}"]).await.unwrap();
    assert_eq!(key, "täxt");
    assert!(access.kubectl_ok(&["get", "cm", "two", "-n", &namespace.name]).await.is_err());
}

#[tokio::test]
async fn requests_are_counted_by_user() {
    let control_plane = shared::embedded().await.unwrap();
    let namespace = TestNamespace::create(control_plane, "audit").await.unwrap();
    let user = format!("counted-{}", namespace.name);
    let client = control_plane.access().client_as(&user, &["system:masters"]).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client, &namespace.name);
    maps.list(&ListParams::default()).await.unwrap();
    let mark = control_plane.audit_mark().await.unwrap();
    maps.get_opt("missing").await.unwrap();
    maps.list_metadata(&ListParams::default()).await.unwrap();
    maps.delete("missing", &DeleteParams::default()).await.unwrap_err();
    let count = |requests: Vec<testkit::audit::Request>| {
        let ours = requests.into_iter().filter(|request| request.username() == user);
        ours.map(|request| (request.verb.clone(), request.code(), request.object().resource)).collect::<Vec<_>>()
    };
    let expected = [("get", 404), ("list", 200), ("delete", 404)]
        .map(|(verb, code)| (verb.to_owned(), code, "configmaps".to_owned()));
    assert_eq!(count(control_plane.requests_since(mark).await.unwrap()), expected);
    assert_eq!(count(control_plane.requests_since(Mark::default()).await.unwrap()).len(), 4);
}

#[tokio::test]
async fn the_api_server_can_hang_and_restart() {
    let control_plane = ControlPlane::start_own(&Options::default()).await.unwrap();
    let namespaces = Api::<Namespace>::all(control_plane.access().admin_client().await.unwrap());
    let ask = || tokio::time::timeout(Duration::from_secs(2), namespaces.get("default"));

    control_plane.pause(Component::Apiserver).await.unwrap();
    assert!(ask().await.is_err(), "a paused API server must not answer");
    control_plane.resume(Component::Apiserver).await.unwrap();
    poll("an answer", Duration::from_secs(30), || async { Ok(ask().await.ok().and_then(Result::ok)) }).await.unwrap();

    control_plane.stop_component(Component::Apiserver).await.unwrap();
    assert!(matches!(ask().await, Ok(Err(_))), "a stopped API server refuses connections");
    control_plane.start_component(Component::Apiserver).await.unwrap();
    poll("an answer", Duration::from_secs(30), || async { Ok(ask().await.ok().and_then(Result::ok)) }).await.unwrap();

    let etcd = control_plane.etcd_dir().unwrap();
    assert!(etcd.join("member/snap/db").is_file());
    control_plane.stop().await.unwrap();
    assert!(!etcd.exists());
}

/// Set in the process that this test starts and kills.
const PARENT: &str = "MANAGED_SECRETS_TEST_PARENT";

#[tokio::test]
async fn nothing_outlives_a_killed_parent() {
    if std::env::var_os(PARENT).is_some() {
        let control_plane = ControlPlane::start_own(&Options::default()).await.unwrap();
        println!("\nfolder={}", control_plane.supervisor().folder().display());
        return std::future::pending().await;
    }
    // This very test again, as the parent of a control plane.
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "integration::harness::nothing_outlives_a_killed_parent", "--nocapture"])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let folder =
        lines.map_while(Result::ok).find_map(|line| Some(PathBuf::from(line.strip_prefix("folder=")?))).unwrap();
    let pids: Vec<_> = ["etcd", "kube-apiserver", "kube-controller-manager"]
        .map(|name| std::fs::read_to_string(folder.join(format!("{name}.pid"))).unwrap().trim().parse().unwrap())
        .map(|pid| Pid::from_raw(pid).unwrap())
        .into();
    let alive = || pids.iter().filter(|pid| test_kill_process(**pid).is_ok()).count();
    assert_eq!(alive(), 3);

    parent.kill().unwrap(); // SIGKILL: it gets no chance to clean up
    parent.wait().unwrap();
    poll("the processes and their folder to go", Duration::from_secs(20), || async {
        Ok((alive() == 0 && !folder.exists()).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_supervised_program_is_paused_stopped_and_killed() {
    let control_plane = shared::control_plane().await.unwrap();
    let folder = control_plane.supervisor().folder();
    // Any program that is given `run` and does not end by itself.
    let program = folder.join("program");
    let script = "#!/bin/sh\ntrap 'echo bye; exit 7' TERM\necho \"$@ $KUBECONFIG\"\nwhile :; do sleep 0.05; done\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let start = || Operator::start(control_plane, &program, Path::new("it's a \"path\""), &["--flag", "$HOME"]);

    let operator = start().await.unwrap();
    let started = "run --flag $HOME it's a \"path\"\n";
    poll("its output", Duration::from_secs(20), || async { Ok((operator.log()? == started).then_some(())) })
        .await
        .unwrap();
    let log = operator.log_path();
    assert_eq!(operator.stop().await.unwrap(), 7);
    assert_eq!(std::fs::read_to_string(log).unwrap(), format!("{started}bye\n"));

    let operator = start().await.unwrap();
    operator.pause().unwrap();
    let log = operator.log_path();
    operator.kill().await.unwrap();
    assert!(!std::fs::read_to_string(log).unwrap().contains("bye"));
}
