//! Values of kubectl's flags that begin with `-`: both programs take the next argument, and send the same.

use serde_json::json;

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, command, finish, kubectl,
    recorder::{Authority, Records, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_begins_with_a_dash_is_taken_as_kubectl_takes_it() {
    let (records, authority, folder) = (Records::default(), Authority::new(), Folder::new());
    let server = Server::tls("server", &authority, &authority.server(&["127.0.0.1"]), &records).await;
    let kubectl = kubectl().await;
    folder.write("ca.pem", &authority.certificate);
    let there = json!({"server": format!("https://{}", server.address), "certificate-authority": "ca.pem"});
    let text = json!({
        "current-context": "a",
        "contexts": [
            {"name": "a", "context": {"cluster": "a", "user": "a", "namespace": "a"}},
            {"name": "-x", "context": {"cluster": "-x", "user": "-x", "namespace": "x"}},
        ],
        "clusters": [{"name": "a", "cluster": there}, {"name": "-x", "cluster": there}],
        "users": [{"name": "a", "user": {"token": "a"}}, {"name": "-x", "user": {"token": "x"}}],
    });
    folder.write("config", text.to_string());
    folder.write("-x", text.to_string());
    for flags in [
        &["--token", "-abc"][..],
        &["--token", "--abc"],
        &["--token=-abc"],
        &["--context", "-x"],
        &["--cluster", "-x"],
        &["--user", "-x"],
        &["--as", "-x"],
        &["--as", "a", "--as-group", "-x", "--as-uid", "-x"],
        &["--kubeconfig", "-x"],
        &["--tls-server-name", "-x"],
    ] {
        let mut sent = Vec::new();
        for (program, request) in [(kubectl.as_path(), &KUBECTL_REQUEST[..]), (PLUGIN.as_ref(), &PLUGIN_REQUEST)] {
            let mut command = command(program, folder.path());
            command.args(request).args(flags).env("KUBECONFIG", "config");
            let ran = finish(command).await;
            assert!(!ran.is_ok, "{flags:?}: the server refuses everything");
            sent.push((records.take(), ran.err));
        }
        assert_eq!(sent[1].0, sent[0].0, "{flags:?}: {sent:?}");
        // No certificate has this name.
        assert_eq!(sent[1].0.is_empty(), flags[0] == "--tls-server-name", "{flags:?}: {sent:?}");
    }
}
