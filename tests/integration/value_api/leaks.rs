//! A value that is not delivered is read, and is found nowhere but in the answer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::{Estate, client::Identity, hidden, path};

#[tokio::test]
async fn a_value_that_is_read_leaves_no_trace() {
    let estate = Estate::shared().await;
    let site = estate.site("leaks").await;
    let value = format!("canary{}", uuid::Uuid::new_v4().simple());
    let id = hidden(&site, "db", "DB", &value).await;
    let token = estate.reader(&site, "web", &["DB", &id]).await;
    for handle in ["DB", &id] {
        let path = path(&site.namespace, handle);
        assert_eq!(estate.direct(&Identity::Token(&token), &path, &[]).await.value(), value);
        assert_eq!(estate.aggregated("", &path, &[]).await.value(), value);
    }
    // Every form of an answer, and every refusal, of a value that exists.
    let refused = estate.reader(&site, "refused", &["OTHER"]).await;
    let accept = [
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json",
        "application/yaml",
    ];
    for handle in ["DB", &id] {
        let path = path(&site.namespace, handle);
        for suffix in ["", "?version=1", "?version=2", "?version=x", "/", "?watch=true"] {
            for accept in accept {
                let (path, headers) = (format!("{path}{suffix}"), [("Accept", accept)]);
                estate.aggregated("", &path, &headers).await;
                estate.aggregated("jane", &path, &headers).await;
                estate.direct(&Identity::Token(&token), &path, &headers).await;
            }
        }
        assert_eq!(estate.direct(&Identity::Token(&refused), &path, &[]).await.code, 403);
        assert_eq!(estate.direct(&Identity::Token("x.y.z"), &path, &[]).await.code, 401);
    }
    let kubectl = estate.control_plane.access();
    kubectl.kubectl_ok(&["-n", &site.namespace, "get", "secretvalue", "DB", "-o", "yaml"]).await.unwrap();
    kubectl.kubectl_ok(&["-n", &site.namespace, "get", "secretvalue", "DB"]).await.unwrap();

    // etcd, the audit log, the logs of all programs, and kubectl's cache are in this folder.
    let folder = estate.control_plane.supervisor().folder();
    let mut searched = Vec::new();
    search(folder, &value, &mut searched);
    for part in ["etcd-data", "audit.log", "kubectl-cache", "operator-"] {
        assert!(searched.iter().any(|path| path.to_string_lossy().contains(part)), "{part} was not searched");
    }
    // The search finds what is there.
    let log = estate.log();
    let audit = std::fs::read_to_string(estate.control_plane.audit_log().unwrap()).unwrap();
    // The log has the bodies of this group at the level at which it has most.
    let of_read = |line: &&str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["requestURI"] == path(&site.namespace, "DB") && entry["level"] == "RequestResponse"
    };
    assert!(audit.lines().any(|line| of_read(&line)), "reads are in the audit log");
    let line = log.lines().find(|line| line.contains("value requested") && line.contains(&site.namespace)).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["user"], format!("system:serviceaccount:{}:web", site.namespace));
    assert_eq!((&line["secret"], &line["id"], &line["result"]), (&"DB".into(), &id.into(), &"value".into()), "{line}");
    assert!(!log.contains(&token), "no token in the log");
}

/// Searches every file of a folder.
fn search(folder: &Path, value: &str, searched: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, value, searched);
        } else if path.is_file() {
            // A file may end meanwhile.
            let content = std::fs::read(&path).unwrap_or_default();
            let found = content.windows(value.len()).any(|window| window == value.as_bytes());
            assert!(!found, "the value is in {}", path.display());
            searched.push(path);
        }
    }
}
