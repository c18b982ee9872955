//! What the chart renders is what `managed-secrets manifests` prints for the same choices.
//!
//! Three things differ, and nothing else: the chart adds [`LABELS`] to each object, it contains the CRD, and it does not
//! contain the namespace.

use std::{collections::BTreeMap, fs, time::Duration};

use managed_secrets::{
    install::{
        manifests::{DEFAULT_PRIORITY_CLASS, KmsSocket, Options, PolicySwitch, Spread, manifests},
        monitoring,
    },
    webhook::server::Limits,
};
use managed_secrets_api::{crd, keys};
use serde_json::{Value, json};

use testkit::root;

use super::{CHART, Helm, MAJORS, NAMESPACE, RELEASE};

/// The labels that each object of the chart has besides those of the manifests.
pub(super) const LABELS: [(&str, &str); 4] = [
    ("app.kubernetes.io/instance", RELEASE),
    ("app.kubernetes.io/managed-by", "Helm"),
    ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
    ("helm.sh/chart", concat!("managed-secrets-", env!("CARGO_PKG_VERSION"))),
];

/// Objects by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

fn by_name(objects: impl IntoIterator<Item = Value>) -> Objects {
    let mut named = Objects::new();
    for object in objects {
        let metadata = &object["metadata"];
        let name = format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]);
        assert!(named.insert(name.clone(), object).is_none(), "{name} twice");
    }
    named
}

/// What Helm renders, without the labels of the chart, which each object must have.
fn rendered(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    by_name(documents.into_iter().filter(|document| !document.is_null()).map(|mut object| {
        let name = object["metadata"]["name"].clone();
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        for (key, value) in LABELS {
            assert_eq!(labels.remove(key), Some(json!(value)), "{name}: {key}");
        }
        object
    }))
}

fn plugin(name: &str) -> KmsSocket {
    let folder = format!("/run/{name}");
    KmsSocket { name: name.to_owned(), socket: format!("unix://{folder}/kms.sock"), folder }
}

/// What the manifests contain, and the CRD as the chart has it.
fn printed(options: &Options) -> Objects {
    let mut definition = serde_json::to_value(crd::crd()).unwrap();
    definition["metadata"]["annotations"] =
        json!({"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": "Prune=false,Delete=false"});
    definition["metadata"]["labels"] = json!({});
    by_name(manifests(options).into_iter().chain([definition]))
}

fn options() -> Options {
    Options { operator_namespace: NAMESPACE.to_owned(), with_namespace: false, ..Options::default() }
}

#[track_caller]
fn assert_same(case: &Value, rendered: &Objects, printed: &Objects) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(rendered), names(printed), "{case}");
    for (name, object) in printed {
        assert_eq!(&rendered[name], object, "{case}: {name}");
    }
}

/// Values, and the options that they stand for.
#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(Value, Options)> {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut cases = vec![
        (json!({}), options()),
        (
            json!({"image": {"repository": "registry.example.com:5000/team/operator", "tag": "1.2.3"}}),
            Options { image: "registry.example.com:5000/team/operator:1.2.3".to_owned(), ..options() },
        ),
        (
            json!({"image": {"tag": "1.2.3", "digest": format!("sha256:{}", "a".repeat(64))}}),
            Options { image: format!("managed-secrets@sha256:{}", "a".repeat(64)), ..options() },
        ),
        // A namespace that YAML would read as a number.
        (json!({"namespaces": ["1"]}), Options { namespaces: texts(&["1"]), ..options() }),
        (
            json!({"namespaces": ["shop", "prod", "test"]}),
            Options { namespaces: texts(&["shop", "prod", "test"]), ..options() },
        ),
        (
            json!({"restorers": ["system:serviceaccount:velero:velero", "O=Ops: \"team\", CN=a # b {{ c }}"]}),
            Options {
                restorers: texts(&["system:serviceaccount:velero:velero", "O=Ops: \"team\", CN=a # b {{ c }}"]),
                ..options()
            },
        ),
        (json!({"webhooks": {"enabled": false}}), Options { webhooks: false, ..options() }),
        (json!({"openshift": true}), Options { openshift: true, ..options() }),
        (json!({"replicas": 5}), Options { replicas: 5, ..options() }),
        (json!({"highAvailability": true}), Options { spread: Spread::Required, ..options() }),
        (json!({"networkPolicy": {"enabled": false}}), Options { network_policy: false, ..options() }),
        (json!({"monitoring": {"serviceMonitor": true}}), Options { monitoring: true, ..options() }),
        (
            json!({"monitoring": {"serviceMonitor": true}, "webhooks": {"enabled": false}}),
            Options { monitoring: true, webhooks: false, ..options() },
        ),
        (json!({"valueApi": {"enabled": true}}), Options { value_api: true, ..options() }),
        (json!({"restarts": {"enabled": true}}), Options { restarts: true, ..options() }),
        (
            json!({"restarts": {"enabled": true}, "namespaces": ["shop"], "valueApi": {"enabled": true}}),
            Options { restarts: true, namespaces: texts(&["shop"]), value_api: true, ..options() },
        ),
        (json!({"monitoring": {"secureMetrics": true}}), Options { secure_metrics: true, ..options() }),
        (
            json!({
                "monitoring": {"serviceMonitor": true, "secureMetrics": true}, "networkPolicy": {"enabled": false},
                "valueApi": {"enabled": true}, "highAvailability": true, "openshift": true,
            }),
            Options {
                monitoring: true,
                secure_metrics: true,
                network_policy: false,
                value_api: true,
                spread: Spread::Required,
                openshift: true,
                ..options()
            },
        ),
        (
            json!({"monitoring": {"serviceMonitor": true}, "networkPolicy": {"enabled": false}, "highAvailability": true}),
            Options { monitoring: true, network_policy: false, spread: Spread::Required, ..options() },
        ),
        (
            json!({"recoveryRecipients": ["msec-recipient-1.AAAA", "msec-recipient-1.BBBB"]}),
            Options { recovery_recipients: texts(&["msec-recipient-1.AAAA", "msec-recipient-1.BBBB"]), ..options() },
        ),
        (
            json!({"kms": [{"name": "aws", "socket": "unix:///run/aws/kms.sock"}, {"name": "old", "socket": "unix:///run/old/kms.sock"}]}),
            Options { kms: vec![plugin("aws"), plugin("old")], ..options() },
        ),
        (
            json!({"kms": [{"name": "aws", "socket": "unix:///run/aws/kms.sock"}], "kekProvider": "local", "kekFile": "/run/kek/key"}),
            Options {
                kms: vec![plugin("aws")],
                kek_provider: Some("local".to_owned()),
                kek_file: Some("/run/kek/key".to_owned()),
                ..options()
            },
        ),
        (
            json!({"kekFile": "/run/kek/key", "allowClusterScope": true}),
            Options { kek_file: Some("/run/kek/key".to_owned()), allow_cluster_scope: true, ..options() },
        ),
        (
            json!({
                "namespaces": ["shop", "prod"], "restorers": ["velero"], "webhooks": {"enabled": false},
                "openshift": true, "kekFile": "/run/kek/key", "allowClusterScope": true,
                "policies": {"userRights": false, "metadataSize": false},
            }),
            Options {
                namespaces: texts(&["shop", "prod"]),
                restorers: texts(&["velero"]),
                webhooks: false,
                openshift: true,
                kek_file: Some("/run/kek/key".to_owned()),
                allow_cluster_scope: true,
                without_policies: vec![PolicySwitch::UserRights, PolicySwitch::MetadataSize],
                ..options()
            },
        ),
        (
            json!({"policies": {
                "userRights": false, "protected": false, "operatorWrites": false, "plaintextAnnotations": false,
                "metadataSize": false,
            }}),
            Options { without_policies: PolicySwitch::ALL.to_vec(), ..options() },
        ),
    ];
    for class in [DEFAULT_PRIORITY_CLASS, "system-node-critical", "platform", ""] {
        let priority_class = Some(class.to_owned()).filter(|class| !class.is_empty());
        cases.push((json!({"priorityClassName": class}), Options { priority_class, ..options() }));
    }
    for (value, switch) in [
        ("userRights", PolicySwitch::UserRights),
        ("protected", PolicySwitch::Protected),
        ("operatorWrites", PolicySwitch::OperatorWrites),
        ("plaintextAnnotations", PolicySwitch::PlaintextAnnotations),
        ("metadataSize", PolicySwitch::MetadataSize),
    ] {
        cases.push((json!({"policies": {value: false}}), Options { without_policies: vec![switch], ..options() }));
    }
    cases
}

#[tokio::test]
async fn the_chart_renders_what_manifests_prints() {
    for major in MAJORS {
        let helm = Helm::new(major);
        for (values, options) in cases() {
            let text = helm.template(&values).await.ok();
            assert_same(&values, &rendered(&text), &printed(&options));
        }
    }
}

/// Values that change the same objects, in every combination.
#[tokio::test]
async fn values_that_meet_in_one_object_render_what_manifests_prints() {
    // Each is off or on: the webhooks last, which metrics with TLS need.
    let choices = |bits: u8| [0, 1, 2, 3, 4].map(|bit| bits & (1 << bit) != 0);
    let sets = (0..32).map(choices).filter(|[.., secure, webhooks]| *webhooks || !secure);
    for (number, [value_api, monitoring, namespaced, secure_metrics, webhooks]) in sets.enumerate() {
        let namespaces = Vec::from_iter(namespaced.then(|| "shop".to_owned()));
        let values = json!({
            "valueApi": {"enabled": value_api}, "namespaces": namespaces, "webhooks": {"enabled": webhooks},
            "monitoring": {"serviceMonitor": monitoring, "secureMetrics": secure_metrics},
        });
        let options = Options { value_api, monitoring, namespaces, secure_metrics, webhooks, ..options() };
        // Both versions render templates in the same way, as the other tests show.
        let helm = Helm::new(MAJORS[number % MAJORS.len()]);
        assert_same(&values, &rendered(&helm.template(&values).await.ok()), &printed(&options));
    }
}

/// Values for which `managed-secrets manifests` has no option: each sets one field, and changes nothing else.
#[tokio::test]
async fn values_for_pods_set_the_fields_that_they_name() {
    let pod = "/spec/template/spec";
    let cases = [
        (json!({"nodeSelector": {"a": "b"}}), "nodeSelector", json!({"a": "b"})),
        (json!({"tolerations": [{"operator": "Exists"}]}), "tolerations", json!([{"operator": "Exists"}])),
        (json!({"affinity": {"nodeAffinity": {}}}), "affinity", json!({"nodeAffinity": {}})),
        (json!({"topologySpreadConstraints": [{"maxSkew": 1}]}), "topologySpreadConstraints", json!([{"maxSkew": 1}])),
        (json!({"imagePullSecrets": [{"name": "a"}]}), "imagePullSecrets", json!([{"name": "a"}])),
        (json!({"extraVolumes": [{"name": "kek"}]}), "volumes", json!([{"name": "kek"}])),
        (json!({"podAnnotations": {"a": "1"}}), "/spec/template/metadata/annotations", json!({"a": "1"})),
        (
            json!({"podLabels": {"a": "1"}}),
            "/spec/template/metadata/labels",
            json!({"app.kubernetes.io/name": keys::OPERATOR_NAME, "a": "1"}),
        ),
        // Helm merges maps of values.
        (json!({"resources": {"limits": {"memory": "1Gi"}}}), "containers/0/resources/limits/memory", json!("1Gi")),
        (json!({"resources": {"requests": null, "limits": null}}), "containers/0/resources", json!({})),
        (json!({"image": {"pullPolicy": "Always"}}), "containers/0/imagePullPolicy", json!("Always")),
        (json!({"extraVolumeMounts": [{"name": "kek"}]}), "containers/0/volumeMounts", json!([{"name": "kek"}])),
        (json!({"extraEnv": [{"name": "A"}]}), "containers/0/env/2", json!({"name": "A"})),
        (json!({"extraArgs": ["--workers=4"]}), "containers/0/args/4", json!("--workers=4")),
        (json!({"logLevel": "debug"}), "containers/0/args/4", json!("--log-level=debug")),
        (json!({"logFormat": "human"}), "containers/0/args/1", json!("--log-format=human")),
    ];
    let name = format!("\"Deployment\" \"{NAMESPACE}\"/\"managed-secrets\"");
    let usual = printed(&options());
    for major in MAJORS {
        let helm = Helm::new(major);
        for (values, field, expected) in &cases {
            let path = if field.starts_with('/') { (*field).to_owned() } else { format!("{pod}/{field}") };
            let mut found = rendered(&helm.template(values).await.ok());
            let deployment = found.get_mut(&name).unwrap();
            assert_eq!(deployment.pointer(&path), Some(expected), "{values}");
            // Without it, the Deployment is the usual one.
            let (parent, key) = path.rsplit_once('/').unwrap();
            match (deployment.pointer_mut(parent).unwrap(), usual[&name].pointer(&path)) {
                (Value::Object(map), None) => drop(map.remove(key)),
                (Value::Array(list), None) => drop(list.remove(key.parse().unwrap())),
                (parent, Some(was)) => match parent.pointer_mut(&format!("/{key}")) {
                    Some(field) => *field = was.clone(),
                    None => panic!("{values}"),
                },
                _ => panic!("{values}: {path}"),
            }
            assert_same(values, &found, &usual);
        }
        let values = json!({"serviceAccount": {"annotations": {"a": "1"}}});
        let mut found = rendered(&helm.template(&values).await.ok());
        let account = found.get_mut(&name.replace("Deployment", "ServiceAccount")).unwrap();
        assert_eq!(account["metadata"].as_object_mut().unwrap().remove("annotations"), Some(json!({"a": "1"})));
        assert_same(&values, &found, &usual);
    }
}

/// A namespace of digits stays a text. In kube-system, the quota would limit pods of others.
#[tokio::test]
async fn every_object_follows_the_namespace_of_the_release() {
    for major in MAJORS {
        for namespace in ["1", "kube-system"] {
            let helm = Helm { namespace, ..Helm::new(major) };
            let values = json!({"namespaces": ["shop"], "monitoring": {"serviceMonitor": true}});
            let options = Options {
                operator_namespace: namespace.to_owned(),
                namespaces: vec!["shop".to_owned()],
                monitoring: true,
                ..options()
            };
            assert_same(&json!(namespace), &rendered(&helm.template(&values).await.ok()), &printed(&options));
        }
    }
}

/// The rules contain actions of Prometheus, which look like those of Helm.
#[tokio::test]
async fn alert_rules_are_the_shipped_ones() {
    for major in MAJORS {
        let mut found = rendered(&Helm::new(major).template(&json!({"monitoring": {"rules": true}})).await.ok());
        let name = format!("\"PrometheusRule\" \"{NAMESPACE}\"/\"managed-secrets\"");
        assert_eq!(found.remove(&name), Some(monitoring::prometheus_rule(NAMESPACE)));
        assert_same(&json!("rules"), &found, &printed(&options()));
    }
}

/// A Prometheus of the Prometheus operator selects both by labels.
#[tokio::test]
async fn labels_for_prometheus_are_on_what_it_selects_and_on_nothing_else() {
    let values =
        json!({"monitoring": {"serviceMonitor": true, "rules": true, "labels": {"release": "1", "team": "a"}}});
    for major in MAJORS {
        let mut found = rendered(&Helm::new(major).template(&values).await.ok());
        for name in [
            "\"ServiceMonitor\" \"vault\"/\"managed-secrets-metrics\"",
            "\"PrometheusRule\" \"vault\"/\"managed-secrets\"",
        ] {
            let labels = found.get_mut(name).unwrap()["metadata"]["labels"].as_object_mut().unwrap();
            assert_eq!(
                (labels.remove("release"), labels.remove("team")),
                (Some(json!("1")), Some(json!("a"))),
                "{name}"
            );
        }
        let options = Options { monitoring: true, ..options() };
        let rules = by_name([monitoring::prometheus_rule(NAMESPACE)]);
        assert_same(&values, &found, &printed(&options).into_iter().chain(rules).collect());
    }
}

/// Kubernetes ends a pod after its grace period, also if the webhooks still answer.
#[tokio::test]
async fn the_grace_period_follows_the_drain_of_the_webhooks() {
    let name = format!("\"Deployment\" \"{NAMESPACE}\"/\"managed-secrets\"");
    let grace = "terminationGracePeriodSeconds";
    let usual = Limits::default().longest_drain();
    for major in MAJORS {
        for seconds in [0, 1, 15, 300] {
            let values = json!({"webhooks": {"drainSeconds": seconds}});
            let drain = Limits { drain: Duration::from_secs(seconds), ..Limits::default() }.longest_drain();
            let mut expected = printed(&options());
            let pod = &mut expected.get_mut(&name).unwrap()["spec"]["template"]["spec"];
            pod[grace] = json!(pod[grace].as_u64().unwrap() + drain.as_secs() - usual.as_secs());
            let arguments = pod["containers"][0]["args"].as_array_mut().unwrap();
            arguments.push(json!(format!("--webhook-drain={seconds}")));
            assert_same(&values, &rendered(&Helm::new(major).template(&values).await.ok()), &expected);
        }
        let mut values = json!({"webhooks": {"drainSeconds": 15, "enabled": false}});
        let without = printed(&Options { webhooks: false, ..options() });
        assert_same(&values, &rendered(&Helm::new(major).template(&values).await.ok()), &without);
        // The value API is on the same port.
        values["valueApi"] = json!({"enabled": true});
        let found = rendered(&Helm::new(major).template(&values).await.ok());
        let pod = &found[&name]["spec"]["template"]["spec"];
        let own = without[&name]["spec"]["template"]["spec"][grace].as_u64().unwrap();
        let drain = Limits { drain: Duration::from_secs(15), ..Limits::default() }.longest_drain();
        assert_eq!(pod[grace], json!(own + drain.as_secs()));
        assert!(pod["containers"][0]["args"].as_array().unwrap().contains(&json!("--webhook-drain=15")));
    }
}

/// Functions of Helm whose result depends on more than the values.
const CHANCE_OR_CLUSTER: [&str; 20] = [
    "lookup",
    "now",
    "uuidv4",
    "htpasswd",
    "bcrypt",
    "encryptAES",
    "shuffle",
    "randAlphaNum",
    "randAlpha",
    "randNumeric",
    "randAscii",
    "randBytes",
    "randInt",
    "genPrivateKey",
    "genCA",
    "genCAWithKey",
    "genSelfSignedCert",
    "genSelfSignedCertWithKey",
    "genSignedCert",
    "genSignedCertWithKey",
];

/// Argo CD renders the chart at each comparison, without a release; Flux upgrades a release that it finds different. So what
/// is rendered must not depend on chance, on the cluster, or on what Helm does, and hooks are for `helm test` only.
#[tokio::test]
async fn what_is_rendered_follows_from_the_values_alone() {
    let values = json!({
        "valueApi": {"enabled": true}, "monitoring": {"serviceMonitor": true, "rules": true, "secureMetrics": true},
    });
    for major in MAJORS {
        let helm = Helm::new(major);
        let text = async |flags: &[&str]| {
            let command = [&["template", RELEASE, "--kube-version", "1.36.0"], flags].concat();
            helm.run(None, &command, Some(&values)).await.ok()
        };
        let first = text(&[]).await;
        assert_eq!(text(&[]).await, first);
        assert_eq!(text(&["--is-upgrade"]).await, first);
        assert_eq!(text(&["--kube-version", "1.34.0", "--api-versions", "monitoring.coreos.com/v1"]).await, first);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&first).unwrap();
        let is_hook = |object: &&Value| object["metadata"]["annotations"]["helm.sh/hook"].is_string();
        let hooks: Vec<_> = documents.iter().filter(is_hook).collect();
        assert_eq!(hooks.len(), 4);
        for hook in hooks {
            assert_eq!(hook["metadata"]["name"], "managed-secrets-check");
            assert_eq!(hook["metadata"]["annotations"]["helm.sh/hook"], "test");
        }
    }
    // What could make a difference in a cluster, which `template` cannot show.
    let mut folders = vec![root().join(CHART).join("templates")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let actions = text.split("{{").skip(1).filter_map(|action| action.split("}}").next());
            for word in actions.flat_map(|action| action.split([' ', '(', ')', '|', '-'])) {
                let is_known = !CHANCE_OR_CLUSTER.contains(&word)
                    && ![".Capabilities", ".Release.Is", ".Release.Revision"].iter().any(|part| word.contains(part));
                assert!(is_known, "{word} in {}", path.display());
            }
        }
    }
}

/// What all releases of a cluster share can be left to one of them.
#[tokio::test]
async fn shared_objects_can_be_left_out() {
    let values = json!({"crds": {"install": false}, "userRoles": {"install": false}});
    for major in MAJORS {
        let found = rendered(&Helm::new(major).template(&values).await.ok());
        let mut expected = printed(&options());
        expected
            .retain(|name, _| !name.starts_with("\"CustomResourceDefinition\"") && !name.contains("\"managedsecret-"));
        assert_eq!(expected.len(), printed(&options()).len() - 3);
        assert_same(&values, &found, &expected);
    }
}
