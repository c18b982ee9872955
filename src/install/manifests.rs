//! Everything a cluster needs to run the operator, as objects built in code: who may do what, what is refused at
//! admission, and the Deployment.
//!
//! Pure: options in, objects out, in the order in which they are applied. `managed-secrets manifests` prints them.
//! `deploy/` contains what it prints for [`Options::default`], and kustomize components with the differences that other
//! options make. Names, types and label keys come from [`managed_secrets_api`], so a policy cannot speak of another key
//! than the operator writes.

mod monitoring;
mod network;
mod policies;
mod rbac;
mod values;
mod webhooks;
mod workload;

use managed_secrets_api::{keys, names};
use managed_secrets_cli::{CliError, yaml};
use serde_json::{Value, json};

pub use policies::PolicySwitch;
pub use rbac::METRICS_READER_ROLE;
pub use workload::Spread;

/// A KMS plugin on each node that replicas run on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KmsSocket {
    /// What the keyring calls it.
    pub name: String,
    /// Its address, `unix:///PATH`.
    pub socket: String,
    /// The folder of the socket. It is mounted instead of the socket, which a plugin recreates when it restarts.
    pub folder: String,
}

/// What an installation looks like.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// Namespace of the operator, its keys and its sealing public key.
    pub operator_namespace: String,
    /// Container image of the operator.
    pub image: String,
    /// Namespaces that the operator watches, with permissions in those alone; empty means the whole cluster.
    pub namespaces: Vec<String>,
    /// User names that may write records, keys and `status`, as a restore from a backup does.
    pub restorers: Vec<String>,
    /// Path of a mounted file that holds the key-encryption key; absent means a Secret of the operator's namespace.
    pub kek_file: Option<String>,
    /// KMS plugins that hold key-encryption keys; the first one encrypts new keys.
    pub kms: Vec<KmsSocket>,
    /// The provider of the key-encryption key that encrypts new keys; absent means what `run` chooses.
    pub kek_provider: Option<String>,
    /// Recovery keys that every key of the keyring is sealed to, each as the text of its recipient.
    pub recovery_recipients: Vec<String>,
    /// The age at which a seed is replaced, as `run --seed-period` reads it; absent means the default of `run`.
    pub seed_period: Option<String>,
    /// The age at which a sealing key is replaced, likewise.
    pub sealing_key_period: Option<String>,
    /// How long a sealing key is unused until it is retired, likewise.
    pub sealing_key_retain: Option<String>,
    /// Whether the operator accepts sealed values of cluster scope.
    pub allow_cluster_scope: bool,
    /// Whether the operator's namespace is one of the objects. Deleting it deletes the keys.
    pub with_namespace: bool,
    /// Whether the operator runs the webhooks. Without them, users must seal values before they apply them.
    pub webhooks: bool,
    /// Whether the metrics require TLS and a token, on a port of their own. They use the certificate of the webhooks.
    pub secure_metrics: bool,
    /// Whether the operator serves the value API, and the API server sends requests for it to the operator.
    pub value_api: bool,
    /// Whether the operator restarts workloads, and may get and patch them for that.
    pub restarts: bool,
    /// Whether OpenShift chooses user and group of the process, as its security context constraint `restricted-v2`
    /// does.
    pub openshift: bool,
    /// Admission policies to leave out; none by default.
    pub without_policies: Vec<PolicySwitch>,
    /// How many replicas run.
    pub replicas: u16,
    /// Whether replicas may share a node.
    pub spread: Spread,
    /// Priority class of the replicas; absent means the cluster's default.
    pub priority_class: Option<String>,
    /// Whether a `NetworkPolicy` limits who may connect to the replicas.
    pub network_policy: bool,
    /// Whether the Prometheus operator is to scrape the replicas.
    pub monitoring: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operator_namespace: keys::DEFAULT_OPERATOR_NAMESPACE.to_owned(),
            image: DEFAULT_IMAGE.to_owned(),
            namespaces: Vec::new(),
            restorers: Vec::new(),
            kek_file: None,
            kms: Vec::new(),
            kek_provider: None,
            recovery_recipients: Vec::new(),
            seed_period: None,
            sealing_key_period: None,
            sealing_key_retain: None,
            allow_cluster_scope: false,
            with_namespace: true,
            webhooks: true,
            secure_metrics: false,
            value_api: false,
            restarts: false,
            openshift: false,
            without_policies: Vec::new(),
            replicas: DEFAULT_REPLICAS,
            spread: Spread::default(),
            priority_class: Some(DEFAULT_PRIORITY_CLASS.to_owned()),
            network_policy: true,
            monitoring: false,
        }
    }
}

impl Options {
    /// User name under which the operator's service account is known to the API server.
    #[must_use]
    pub fn operator_user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.operator_namespace, keys::OPERATOR_NAME)
    }

    /// Whether the API server sends requests to the operator: for the webhooks, the value API, or both, on one port.
    fn has_server(&self) -> bool {
        self.webhooks || self.value_api
    }

    /// Name of an object that belongs to the cluster, where another installation may have its own.
    fn cluster_object_name(&self, name: &str) -> String {
        names::cluster_object_name(name, &self.operator_namespace, self.namespaces.is_empty())
    }
}

/// The image when none is named: a local name, to be replaced by the place the image was pushed to.
pub const DEFAULT_IMAGE: &str = concat!("managed-secrets:", env!("CARGO_PKG_VERSION"));

/// The number of replicas when none is given: all of them answer webhooks, and another one continues the leader's work when
/// the leader ends.
pub const DEFAULT_REPLICAS: u16 = 2;

/// The number of replicas of a highly available installation when none is given: with one replica down, for example
/// because its node is drained, two are left.
pub const HIGHLY_AVAILABLE_REPLICAS: u16 = 3;

/// The priority class when none is given. Every cluster has it.
///
/// Without a replica, the API server refuses plain values, also those of other components that the cluster needs. On a
/// full cluster, a replica must therefore find a node before pods of the default priority do.
pub const DEFAULT_PRIORITY_CLASS: &str = "system-cluster-critical";

/// All objects of an installation, except the CRD: namespace, service account, permissions, policies, Deployment,
/// `PodDisruptionBudget`, Service, webhook configurations, and the Service and APIService of the value API.
///
/// The policies come before the Deployment, so that no operator runs without them.
#[must_use]
pub fn manifests(options: &Options) -> Vec<Value> {
    let mut objects = Vec::new();
    if options.with_namespace {
        objects.push(workload::namespace(options));
    }
    objects.extend(workload::quota(options));
    objects.push(workload::service_account(options));
    objects.extend(rbac::objects(options));
    objects.extend(policies::objects(options));
    objects.extend(network::policies(options));
    objects.push(workload::deployment(options));
    objects.push(workload::disruption_budget(options));
    if options.has_server() {
        objects.push(webhooks::service(options));
    }
    if options.webhooks {
        objects.extend(webhooks::configurations(options));
    }
    if options.monitoring {
        objects.extend(monitoring::objects(options));
    }
    if options.value_api {
        objects.extend(values::registration(options));
    }
    objects
}

/// First line of every generated manifest.
pub const GENERATED: &str = "# Generated by `make generate`; edit src/install instead.\n";

/// The multi-document stream that `managed-secrets manifests` prints.
pub fn print(options: &Options) -> Result<String, CliError> {
    Ok(format!("{GENERATED}{}", yaml::stream(&manifests(options))?))
}

/// `metadata` of an object of the installation; `namespace` is absent for those of the cluster.
fn metadata(name: &str, namespace: Option<&str>) -> Value {
    let mut metadata = json!({"name": name, "labels": labels()});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// A selector of these namespaces; `None`, for none means all.
fn in_namespaces(namespaces: &[String]) -> Option<Value> {
    let named = || json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces});
    (!namespaces.is_empty()).then(|| json!({"matchExpressions": [named()]}))
}

/// Labels that every object of the installation carries; the Deployment selects its pods by them.
fn labels() -> Value {
    json!({"app.kubernetes.io/name": keys::OPERATOR_NAME})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use managed_secrets_api::value;

    use super::*;

    fn kinds_and_names(options: &Options) -> Vec<String> {
        manifests(options)
            .iter()
            .map(|object| {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                format!(
                    "{} {namespace}/{}",
                    object["kind"].as_str().unwrap(),
                    object["metadata"]["name"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn no_object_is_named_twice() {
        for namespaces in [vec![], vec!["shop".to_owned(), "prod".to_owned()]] {
            let mut names = kinds_and_names(&Options { namespaces, ..Options::default() });
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }

    #[test]
    fn an_operator_of_some_namespaces_gets_no_rights_in_others() {
        let options = Options { namespaces: vec!["shop".to_owned()], ..Options::default() };
        let names = kinds_and_names(&options);
        let bound = names.iter().filter(|name| name.starts_with("ClusterRoleBinding "));
        let webhooks = "ClusterRoleBinding /managed-secrets-webhooks.managed-secrets-system";
        assert!(bound.clone().all(|name| name == webhooks), "{names:?}");
        assert!(names.contains(&"RoleBinding shop/managed-secrets".to_owned()), "{names:?}");
        assert!(!names.contains(&"ClusterRole /managed-secrets".to_owned()), "{names:?}");
    }

    #[test]
    fn operators_of_different_namespaces_share_no_object_but_the_roles_for_people() {
        let options = |own: &str, served: &str| Options {
            operator_namespace: own.to_owned(),
            namespaces: vec![served.to_owned()],
            ..Options::default()
        };
        let (one, other) = (kinds_and_names(&options("a", "shop")), kinds_and_names(&options("b", "prod")));
        let shared: Vec<_> = one.iter().filter(|name| other.contains(name)).collect();
        assert_eq!(shared, ["ClusterRole /managedsecret-viewer", "ClusterRole /managedsecret-editor"]);
    }

    #[test]
    fn each_policy_can_be_left_out_together_with_its_binding() {
        for switch in PolicySwitch::ALL {
            let options = Options { without_policies: vec![switch], ..Options::default() };
            let (with, without) = (kinds_and_names(&Options::default()), kinds_and_names(&options));
            let gone: Vec<_> = with.iter().filter(|name| !without.contains(name)).collect();
            let policies = gone.iter().filter(|name| name.starts_with("ValidatingAdmissionPolicy ")).count();
            let bindings = gone.iter().filter(|name| name.starts_with("ValidatingAdmissionPolicyBinding ")).count();
            assert!(policies > 0 && policies == bindings && policies + bindings == gone.len(), "{switch:?}: {gone:?}");
        }
    }

    #[test]
    fn everything_but_the_namespace_can_be_printed() {
        let (all, rest) = (
            kinds_and_names(&Options::default()),
            kinds_and_names(&Options { with_namespace: false, ..Options::default() }),
        );
        let left_out: Vec<_> = all.iter().filter(|name| !rest.contains(name)).collect();
        assert_eq!(left_out, [&format!("Namespace /{}", keys::DEFAULT_OPERATOR_NAMESPACE)]);
    }

    fn pod(options: &Options) -> Value {
        let objects = manifests(options);
        objects.iter().find(|object| object["kind"] == "Deployment").unwrap()["spec"]["template"]["spec"].clone()
    }

    #[test]
    fn on_openshift_no_id_is_fixed_and_the_rest_is_as_strict() {
        let (mut usual, openshift) =
            (pod(&Options::default()), pod(&Options { openshift: true, ..Options::default() }));
        let security = usual["securityContext"].as_object_mut().unwrap();
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(security.remove(id).is_some(), "{id}");
        }
        assert_eq!(openshift, usual);
        assert_eq!(openshift["securityContext"]["runAsNonRoot"], true);
    }

    #[test]
    fn a_pod_has_time_to_drain_and_is_probed_with_and_without_webhooks() {
        let (with, without) = (pod(&Options::default()), pod(&Options { webhooks: false, ..Options::default() }));
        let grace = |pod: &Value| pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert_eq!(grace(&with), grace(&without) + u64::from(crate::webhook::server::LONGEST_DRAIN_SECONDS));
        for pod in [&with, &without] {
            let container = &pod["containers"][0];
            let ports = container["ports"].as_array().unwrap();
            let port = ports.iter().find(|port| port["name"] == "admin").unwrap()["containerPort"].as_u64().unwrap();
            let argument = format!("--admin-listen=[::]:{port}");
            assert!(container["args"].as_array().unwrap().iter().any(|given| *given == argument));
            for (probe, path) in
                [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            {
                assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "admin"}));
            }
        }
    }

    #[test]
    fn the_value_api_is_off_unless_it_is_wanted_and_comes_last() {
        let text = serde_json::to_string(&manifests(&Options::default())).unwrap();
        for part in ["apiregistration.k8s.io", "tokenreviews", "--value-api", "managedsecret-value-reader"] {
            assert!(!text.contains(part), "{part}");
        }
        for webhooks in [true, false] {
            let options = Options { value_api: true, webhooks, ..Options::default() };
            let objects = manifests(&options);
            let service = objects.last().unwrap();
            assert_eq!(
                (&service["kind"], &service["metadata"]["name"]),
                (&json!("APIService"), &json!(value::API_SERVICE))
            );
            // The operator writes it.
            assert!(service["spec"].get("caBundle").is_none());
            let target = &service["spec"]["service"];
            let service = &objects[objects.len() - 2];
            assert_eq!((&service["kind"], &service["metadata"]["name"]), (&json!("Service"), &target["name"]));
            assert_eq!((&target["port"], &service["spec"]["ports"][0]["port"]), (&json!(443), &json!(443)));
            // Discovery must reach a replica that waits for its keyring; the webhooks must not.
            let webhooks = objects.iter().find(|object| object["kind"] == "Service").unwrap();
            assert_eq!(webhooks["metadata"]["name"], keys::OPERATOR_NAME);
            let publishes = |service: &Value| service["spec"]["publishNotReadyAddresses"] == true;
            assert!(publishes(service) && !publishes(webhooks));
            assert_eq!(service["spec"]["selector"], webhooks["spec"]["selector"]);
            let pod = pod(&options);
            let container = &pod["containers"][0];
            assert!(container["args"].as_array().unwrap().contains(&json!("--value-api")));
            let named = |port: &&Value| port["name"] == service["spec"]["ports"][0]["targetPort"];
            assert!(container["ports"].as_array().unwrap().iter().any(|port| named(&port)));
        }
    }

    #[test]
    fn workloads_are_patched_only_where_that_is_wanted() {
        let rules = |options: &Options| -> Vec<Value> {
            let objects = manifests(options);
            let roles = objects.iter().filter(|object| object["rules"].is_array());
            let all = roles.flat_map(|role| role["rules"].as_array().unwrap().clone());
            all.filter(|rule| rule["apiGroups"] == json!(["apps"])).collect()
        };
        assert_eq!(rules(&Options::default()), [Value::Null; 0]);
        for namespaces in [vec![], vec!["shop".to_owned()]] {
            let options = Options { restarts: true, namespaces, ..Options::default() };
            let expected = json!({
                "apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"],
                "verbs": ["get", "patch"],
            });
            assert_eq!(rules(&options), [expected]);
            assert!(pod(&options)["containers"][0]["args"].as_array().unwrap().contains(&json!("--restarts")));
        }
        assert!(!serde_json::to_string(&manifests(&Options::default())).unwrap().contains("--restarts"));
    }

    /// A cluster has one APIService of this name.
    #[test]
    fn an_operator_of_some_namespaces_serves_values_and_does_not_register_the_api() {
        let options = Options { value_api: true, namespaces: vec!["shop".to_owned()], ..Options::default() };
        let text = serde_json::to_string(&manifests(&options)).unwrap();
        assert!(text.contains("tokenreviews") && text.contains("--value-api"));
        assert!(!text.contains("apiregistration.k8s.io"));
    }

    #[test]
    fn the_replicas_compete_for_a_lease_that_they_may_write() {
        for options in [Options::default(), Options { webhooks: false, ..Options::default() }] {
            let container = pod(&options)["containers"][0].clone();
            assert!(container["args"].as_array().unwrap().contains(&json!("--leader-elect")));
            assert!(container["env"].as_array().unwrap().iter().any(|variable| variable["name"] == "POD_NAME"));
            let objects = manifests(&options);
            let rules: Vec<_> = objects
                .iter()
                .filter(|object| {
                    object["kind"] == "Role" && object["metadata"]["namespace"] == options.operator_namespace
                })
                .flat_map(|role| role["rules"].as_array().unwrap())
                .filter(|rule| rule["resources"] == json!(["leases"]))
                .collect();
            assert!(rules.iter().any(|rule| rule["verbs"] == json!(["create"])), "{rules:?}");
            let update = |rule: &&&Value| rule["verbs"].as_array().unwrap().contains(&json!("update"));
            let names: Vec<_> = rules.iter().filter(update).map(|rule| &rule["resourceNames"]).collect();
            assert_eq!(names, [&json!([keys::OPERATOR_NAME])]);
            let budget = objects.iter().find(|object| object["kind"] == "PodDisruptionBudget").unwrap();
            assert_eq!(budget["spec"]["selector"]["matchLabels"], labels());
        }
    }

    #[test]
    fn only_the_webhooks_are_reached_and_metrics_if_they_are_wanted() {
        let rules = |options: &Options| -> Vec<_> {
            let objects = manifests(options);
            let policies = objects.iter().filter(|object| object["kind"] == "NetworkPolicy");
            let ports = |rule: &Value| (rule["ports"][0]["port"].as_u64().unwrap(), rule["from"].is_null());
            let rules = policies.flat_map(|policy| {
                assert_eq!(policy["spec"]["podSelector"]["matchLabels"], labels());
                assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
                policy["spec"]["ingress"].as_array().unwrap()
            });
            rules.map(ports).collect()
        };
        let port = |options: &Options, name: &str| {
            let pod = pod(options);
            let ports = pod["containers"][0]["ports"].as_array().unwrap();
            ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_u64().unwrap()
        };
        let usual = Options::default();
        assert_eq!(rules(&usual), [(port(&usual, "webhooks"), true)]);
        let monitored = Options { monitoring: true, ..Options::default() };
        assert_eq!(rules(&monitored), [(port(&monitored, "webhooks"), true), (port(&monitored, "admin"), false)]);
        // A policy without a rule refuses every connection.
        let closed = Options { webhooks: false, ..Options::default() };
        assert_eq!(rules(&closed), []);
        assert!(kinds_and_names(&closed).iter().any(|name| name.starts_with("NetworkPolicy ")));
        let open = Options { network_policy: false, monitoring: true, ..Options::default() };
        assert!(!kinds_and_names(&open).iter().any(|name| name.starts_with("NetworkPolicy ")));
    }

    #[test]
    fn a_critical_priority_class_comes_with_a_quota_that_permits_it() {
        let quota = |options: &Options| {
            let objects = manifests(options);
            let quota = objects.iter().find(|object| object["kind"] == "ResourceQuota")?;
            Some(quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"].clone())
        };
        let with = |class: Option<&str>| Options { priority_class: class.map(str::to_owned), ..Options::default() };
        assert_eq!(pod(&Options::default())["priorityClassName"], DEFAULT_PRIORITY_CLASS);
        assert_eq!(quota(&Options::default()), Some(json!([DEFAULT_PRIORITY_CLASS])));
        assert_eq!(quota(&with(Some("system-node-critical"))), Some(json!(["system-node-critical"])));
        assert_eq!((quota(&with(Some("platform"))), quota(&with(None))), (None, None));
        assert_eq!(pod(&with(None))["priorityClassName"], Value::Null);
        // There it would limit the pods of others.
        assert_eq!(quota(&Options { operator_namespace: "kube-system".to_owned(), ..Options::default() }), None);
    }

    #[test]
    fn strictly_spread_replicas_count_those_of_their_own_revision_only() {
        let options = Options { spread: Spread::Required, replicas: 3, ..Options::default() };
        let constraints = pod(&options)["topologySpreadConstraints"].clone();
        for constraint in constraints.as_array().unwrap() {
            assert_eq!(constraint["labelSelector"]["matchLabels"], labels());
            assert_eq!(constraint["matchLabelKeys"], json!(["pod-template-hash"]));
            // A drained node must not keep the others from taking its replicas.
            assert_eq!(constraint["nodeTaintsPolicy"], "Honor");
        }
        assert!(pod(&Options::default())["topologySpreadConstraints"].is_null());
    }

    #[test]
    fn metrics_with_a_token_come_with_the_permissions_to_check_it() {
        let options = Options { secure_metrics: true, ..Options::default() };
        let (plain, secure) = (kinds_and_names(&Options::default()), kinds_and_names(&options));
        let added: Vec<_> = secure.iter().filter(|name| !plain.contains(name)).collect();
        assert_eq!(
            added,
            [
                "ClusterRole /managed-secrets-reviews",
                "ClusterRoleBinding /managed-secrets-reviews",
                "ClusterRole /managed-secrets-metrics-reader"
            ]
        );
        let container = pod(&options)["containers"][0].clone();
        let ports = container["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == "metrics").unwrap()["containerPort"].as_u64().unwrap();
        let argument = json!(format!("--metrics-listen=[::]:{port}"));
        assert!(container["args"].as_array().unwrap().contains(&argument));
    }

    #[test]
    fn prometheus_scrapes_the_port_that_has_the_metrics() {
        for (secure_metrics, scheme) in [(false, Value::Null), (true, json!("https"))] {
            let options = Options { monitoring: true, secure_metrics, ..Options::default() };
            let objects = manifests(&options);
            let of = |kind: &str, name: &str| {
                let named = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
                objects.iter().find(named).unwrap()["spec"].clone()
            };
            let endpoint = of("ServiceMonitor", "managed-secrets-metrics")["endpoints"][0].clone();
            assert_eq!(endpoint["scheme"], scheme);
            assert_eq!(endpoint["tlsConfig"].is_object(), secure_metrics);
            assert_eq!(endpoint["bearerTokenFile"].is_string(), secure_metrics);
            let port = of("Service", "managed-secrets-metrics")["ports"][0].clone();
            let container = pod(&options)["containers"][0]["ports"].clone();
            let ports = container.as_array().unwrap();
            let target = ports.iter().find(|open| open["name"] == port["targetPort"]).unwrap()["containerPort"].clone();
            assert_eq!(port["port"], target);
            let ingress = of("NetworkPolicy", "managed-secrets-metrics")["ingress"].clone();
            let admitted = ingress.as_array().unwrap().iter().find(|rule| rule["from"].is_array()).unwrap();
            assert_eq!(admitted["ports"][0]["port"], target);
        }
    }

    #[test]
    fn the_operators_user_name_follows_its_namespace_into_the_policies() {
        let options = Options { operator_namespace: "vault".to_owned(), ..Options::default() };
        let text = serde_json::to_string(&manifests(&options)).unwrap();
        assert!(text.contains("system:serviceaccount:vault:managed-secrets"));
        assert!(!text.contains(keys::DEFAULT_OPERATOR_NAMESPACE));
    }
}
