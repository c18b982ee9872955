//! The table of alerts: when each one fires, and what to do then.

use managed_secrets_api::Reason;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Values are at risk, or nothing is delivered: look at it at once.
    Critical,
    /// Something does not work as it should: look at it during the day.
    Warning,
}

impl Severity {
    /// Returns the value of the label `severity`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// An alert. Its texts are sentences without Markdown, except those of the runbook.
pub struct Alert {
    /// Its name, which is also the heading of its section in the runbook.
    pub name: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// How long the expression must hold, as Prometheus writes durations.
    pub hold: &'static str,
    /// The expression, in `PromQL`.
    pub expression: fn() -> String,
    /// What is wrong, in a few words.
    pub summary: &'static str,
    /// What is wrong and what follows from it.
    pub description: &'static str,
    /// What the alert means.
    pub meaning: &'static str,
    /// How to confirm it.
    pub confirm: &'static str,
    /// What to do.
    pub action: &'static str,
    /// What is at risk, and what is not.
    pub risk: &'static str,
}

/// A certificate that expires within this time was not renewed when it should have been: the operator renews its own after
/// two thirds of 14 days, and cert-manager renews in the last third.
const EXPIRES_SOON_SECONDS: u32 = 2 * 24 * 3600;

/// A rotation of a seed that takes longer than this does not end by itself.
const ROTATION_SECONDS: u32 = 24 * 3600;

/// A sealing key that is not replaced so long after its time is not replaced by itself.
const OVERDUE_SECONDS: u32 = 24 * 3600;

/// Reasons that mean that a stored value may be lost or may have been manipulated.
pub const VALUE_AT_RISK: &[Reason] = &[
    Reason::RecordTampered,
    Reason::RecordMalformed,
    Reason::RecordMoved,
    Reason::SeedUnknown,
    Reason::RecordCommitmentMismatch,
    Reason::RecordPayloadTampered,
    Reason::RecordRolledBack,
    Reason::RecordLost,
];

/// Reasons of objects that need no attention.
pub const HEALTHY: &[Reason] = &[
    Reason::Served,
    Reason::Suspended,
    Reason::RecordTakenOver,
    Reason::TargetDriftCorrected,
    Reason::NamespaceTerminating,
];

fn pattern<'r>(reasons: impl IntoIterator<Item = &'r Reason>) -> String {
    reasons.into_iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join("|")
}

fn expiring(reason: Reason) -> String {
    format!("max by (namespace) (managed_secrets_expiring{{reason=\"{reason}\"}}) > 0")
}

/// Every alert, the most urgent first.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "ManagedSecretsDown",
        severity: Severity::Critical,
        hold: "5m",
        expression: || "absent(managed_secrets_build_info)".to_owned(),
        summary: "No replica of the operator can be scraped.",
        description: "Prometheus has scraped no replica of managed-secrets for 5 minutes. While the operator is down, the \
                      API server refuses plain values, and no change reaches the delivered Secrets.",
        meaning: "Prometheus finds no replica, or every scrape fails: no replica runs, Prometheus cannot connect to the \
                  port, or it may not read the metrics.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system get deployment,pods -l app.kubernetes.io/name=managed-secrets\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=20\n\
                  ```\n\n\
                  If the pods are ready, the operator works, and the problem is the scrape. The page of targets in \
                  Prometheus shows its error.",
        action: "* **No pods, or pods that are pending**: `kubectl describe` shows why. Common causes are a quota, a node \
                 that is full, and an image that cannot be pulled.\n\
                 * **Pods that restart**: see [ManagedSecretsRestarting](#managedsecretsrestarting).\n\
                 * **Pods that are ready, and `connection refused` or a timeout**: check the NetworkPolicies and \
                 `--admin-listen`.\n\
                 * **Pods that are ready, and `401` or `403`**: the metrics [require a token](monitoring.md#tls-and-a-token).",
        risk: "Delivered Secrets stay as they are, and pods continue to read them. Sealed values can be applied; the \
               operator delivers them when it is back. Plain values are refused. The operator repairs no Secret that is \
               changed or deleted meanwhile.",
    },
    Alert {
        name: "ManagedSecretsNoLeader",
        severity: Severity::Critical,
        hold: "3m",
        expression: || "max by (namespace) (managed_secrets_leader) == 0".to_owned(),
        summary: "No replica of the operator is the leader.",
        description: "Replicas of managed-secrets run in namespace \"{{ $labels.namespace }}\", but none has been the leader \
                      for 3 minutes. No change reaches the delivered Secrets.",
        meaning: "The replicas agree on a leader by the Lease `managed-secrets`. None of them can take or renew it.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system get lease managed-secrets -o yaml\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=200 | grep -i lease\n\
                  ```\n\n\
                  `spec.holderIdentity` names the pod that holds the Lease, and `spec.renewTime` says when it renewed it.",
        action: "* **The log says that the Lease cannot be read or written**: check the Role `managed-secrets-keys` and its \
                 binding, and admission policies on Leases.\n\
                 * **The Lease is held by a process that is not one of the pods**: stop that process. It renews the Lease, \
                 so it reconciles.\n\
                 * **The API server fails**: see [ManagedSecretsApiErrors](#managedsecretsapierrors).",
        risk: "Delivered Secrets stay, and pods continue to read them. The webhooks work: plain values are sealed. New and \
               changed values are not delivered until a replica leads.",
    },
    Alert {
        name: "ManagedSecretsTwoLeaders",
        severity: Severity::Critical,
        hold: "2m",
        expression: || "sum by (namespace) (managed_secrets_leader) > 1".to_owned(),
        summary: "Several replicas of the operator are the leader.",
        description: "{{ $value }} replicas of managed-secrets in namespace \"{{ $labels.namespace }}\" reconcile at the same \
                      time. They may undo each other's writes.",
        meaning: "Several processes reconcile. With `--leader-elect` only one can. So at least one of them runs without it, \
                  or two installations use one namespace.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system get pods -l app.kubernetes.io/name=managed-secrets \
                  -o custom-columns=NAME:.metadata.name,ARGS:.spec.containers[0].args\n\
                  ```",
        action: "Run every replica with `--leader-elect`, as the shipped Deployment does, or run one replica only. Look for \
                 an operator outside the cluster, too: `managed-secrets run` on a developer's machine is one.",
        risk: "No value is lost: each write of a record or target names the version of the object that it was decided on, \
               and the API server refuses it if another process was faster. Until you correct it, the API server gets more \
               requests, and different versions of the operator may change an object back and forth.",
    },
    Alert {
        name: "ManagedSecretsKeyringLost",
        severity: Severity::Critical,
        hold: "2m",
        expression: || "min by (namespace) (managed_secrets_health_check{check=\"keyring\"}) == 0".to_owned(),
        summary: "The keyring of the operator is lost or cannot be opened.",
        description: "A replica of managed-secrets in namespace \"{{ $labels.namespace }}\" has no usable keyring. Do not \
                      restart the operator: it still has the keys in memory.",
        meaning: "The Secret `managed-secrets-keyring` or a key-encryption key was deleted or changed, and the operator \
                  cannot open it. The operator keeps the keys that it has in memory, but after a restart it could open no \
                  record. With the value API, a replica that has started meanwhile waits for the keyring, and this alert \
                  fires for it, too.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system get secrets\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  ```\n\n\
                  The line `keyring` of the second answer says what is missing.",
        action: "1. **Do not restart or delete the operator's pods**, and do not change the Deployment.\n\
                 2. Restore the Secrets that the message names from your backup: \
                 [When keys are lost](operations.md#when-keys-are-lost).\n\
                 3. Find out who deleted or changed them: the audit log shows the user. Every user who may delete Secrets in \
                 the operator's namespace can do this.",
        risk: "Everything is at risk that exists only as an encrypted record: without the keyring, it cannot be opened. \
               Delivered Secrets stay, and pods continue to read them. Do not delete them: they may become the only copy.",
    },
    Alert {
        name: "ManagedSecretsValueAtRisk",
        severity: Severity::Critical,
        hold: "5m",
        expression: || {
            format!(
                "max by (namespace, reason) (managed_secrets_objects{{reason=~\"{}\"}}) > 0",
                pattern(VALUE_AT_RISK)
            )
        },
        summary: "Stored values may be lost or manipulated.",
        description: "{{ $value }} ManagedSecrets have the reason {{ $labels.reason }}. The operator does not deliver from \
                      a record that it cannot verify.",
        meaning: "The record of a ManagedSecret is missing, was changed by another program, or cannot be opened with the \
                  keyring. The operator keeps what is delivered and changes nothing. [reasons.md](reasons.md) explains each \
                  reason.",
        confirm: "```console\n\
                  $ kubectl get managedsecrets -A -o wide | grep -E 'Record|Seed'\n\
                  $ kubectl -n NAMESPACE describe managedsecret NAME\n\
                  ```",
        action: "* **`SeedUnknown`**: restore the keyring ([When keys are lost](operations.md#when-keys-are-lost)). If many \
                 objects have this reason, a backup was probably restored without its keyring.\n\
                 * **`RecordLost`**: restore the record from a backup. If there is none, create the object again for a new \
                 value, and change the password where it is used.\n\
                 * **All others**: find out who changed the record: the audit log shows writes to Secrets with the label \
                 `managedsecrets.dev/role: record`. Then restore the record. If the value is in `spec.value` or in a source, \
                 you can delete the record instead: the operator rebuilds it.",
        risk: "The value of each such object. Its delivered Secret stays and is the last copy: do not delete it. Other \
               objects are not affected.",
    },
    Alert {
        name: "ManagedSecretsCertificateExpiring",
        severity: Severity::Critical,
        hold: "10m",
        expression: || {
            format!(
                "min by (namespace) (managed_secrets_webhook_certificate_expiry_timestamp_seconds) - time() < {EXPIRES_SOON_SECONDS}"
            )
        },
        summary: "The certificate of the webhooks expires soon and was not renewed.",
        description: "The certificate of the webhooks in namespace \"{{ $labels.namespace }}\" expires in \
                      {{ $value | humanizeDuration }}. When it has expired, the API server refuses plain values.",
        meaning: "A certificate is valid for 14 days, and the operator renews it after two thirds of this time. One that \
                  expires within two days was therefore not renewed. With `--webhook-cert-dir`, another program renews it.",
        confirm: "```console\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=500 | grep -i webhook\n\
                  ```",
        action: "* **The log says that the Secret `managed-secrets-webhook` cannot be read or written**: correct the \
                 permission, or delete the Secret if the log says that the operator did not create it.\n\
                 * **The log says that a webhook configuration cannot be written**: the operator serves no certificate that \
                 the API server does not trust yet. Correct the permission, or the policy that refuses the write.\n\
                 * **With `--webhook-cert-dir`**: check the program that fills the folder, for example the Certificate of \
                 cert-manager.",
        risk: "No value is at risk. When the certificate has expired, the API server refuses plain values until it is \
               renewed. Sealed values, delivered Secrets and the reconciles are not affected.",
    },
    Alert {
        name: "ManagedSecretsSeedRotationStalled",
        severity: Severity::Warning,
        hold: "15m",
        expression: || {
            format!(
                "time() - max by (namespace) (managed_secrets_seed_rotation_started_timestamp_seconds) > {ROTATION_SECONDS}"
            )
        },
        summary: "Records are still under a seed that was replaced.",
        description: "A seed of the operator in namespace \"{{ $labels.namespace }}\" was replaced \
                      {{ $value | humanizeDuration }} ago, and records may still be under the earlier one.",
        meaning: "After a new seed is active, the leader moves every record to it and checks twice, an hour apart, that no \
                  record is under the earlier one. This takes hours with many records, and not a day.",
        confirm: "```console\n\
                  $ kubectl msec doctor\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=2000 | grep -i seed\n\
                  ```\n\n\
                  `managed_secrets_rewrap_records_stuck` says how many records cannot be moved, and why. `doctor` names records under \
                  earlier seeds, and the log of the leader has a line for each that cannot be moved.",
        action: "* **The log names records that do not verify**: restore them from a backup, or delete them if they are not \
                 needed. The objects report why.\n\
                 * **The log names records that cannot be written**: correct the permission or the admission policy that it \
                 names.\n\
                 * **The log says that the records cannot be listed**: correct the permission in this namespace, or remove the \
                 namespace from `--namespace`.\n\
                 * **The leader restarts again and again**: see [ManagedSecretsRestarting](#managedsecretsrestarting).",
        risk: "No value is at risk: the earlier seed stays in the keyring, and its records open. New values are under the new \
               seed.",
    },
    Alert {
        name: "ManagedSecretsSealingKeyOverdue",
        severity: Severity::Warning,
        hold: "15m",
        expression: || {
            format!(
                "time() - max by (namespace) (managed_secrets_sealing_key_due_timestamp_seconds) > {OVERDUE_SECONDS}"
            )
        },
        summary: "The sealing key is older than its period.",
        description: "The operator in namespace \"{{ $labels.namespace }}\" should have replaced its sealing key \
                      {{ $value | humanizeDuration }} ago.",
        meaning: "The leader replaces the sealing key when it has the age `--sealing-key-period`. It begins one hour after it \
                  became the leader, and needs some minutes.",
        confirm: "```console\n\
                  $ kubectl msec keys list\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=2000 | grep -i 'sealing key'\n\
                  ```",
        action: "* **The log says that the keyring is older than one that was seen before**: see \
                 [ManagedSecretsKeyringRolledBack](#managedsecretskeyringrolledback).\n\
                 * **The log says that the keyring cannot be written**: correct the permission, or the admission policy that it \
                 names.\n\
                 * **The leader restarts again and again**: see [ManagedSecretsRestarting](#managedsecretsrestarting).",
        risk: "No value is at risk: everything that was sealed opens. More values are under one key than planned.",
    },
    Alert {
        name: "ManagedSecretsOneReplica",
        severity: Severity::Warning,
        hold: "15m",
        expression: || "count by (namespace) (managed_secrets_build_info) == 1".to_owned(),
        summary: "Only one replica of the operator can be scraped.",
        description: "Prometheus has scraped only one replica of managed-secrets in namespace \"{{ $labels.namespace }}\" for \
                      15 minutes. If this replica ends or its node fails, the API server refuses plain values.",
        meaning: "An installation has two replicas or more, so that one can fail or move. One of them does not run, or \
                  Prometheus cannot connect to it. An installation with one replica on purpose has this alert always: \
                  remove the rule, or silence it.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system get deployment,pods -l app.kubernetes.io/name=managed-secrets -o wide\n\
                  $ kubectl -n managed-secrets-system get events --field-selector reason=FailedScheduling\n\
                  ```\n\n\
                  If all pods are ready, the page of targets in Prometheus shows why a scrape fails.",
        action: "* **A pod that is pending**: `kubectl describe` shows why. With `--high-availability`, each replica needs a \
                 node of its own if there are enough of them.\n\
                 * **Fewer pods than replicas**: a quota or an admission policy refuses them; `kubectl describe replicaset` \
                 shows it.\n\
                 * **A pod that restarts**: see [ManagedSecretsRestarting](#managedsecretsrestarting).\n\
                 * **All pods are ready, and a scrape fails**: check the NetworkPolicies, and whether Prometheus scrapes \
                 every replica and not the Service.",
        risk: "Nothing yet: one replica seals values, reconciles and serves the value API. Nothing replaces it for the time in \
               which it restarts or moves to another node.",
    },
    Alert {
        name: "ManagedSecretsNotReady",
        severity: Severity::Warning,
        hold: "10m",
        expression: || {
            "min by (namespace, pod, instance, check) (managed_secrets_health_check{check!=\"keyring\"}) == 0"
                .to_owned()
        },
        summary: "A replica of the operator fails a health check.",
        description: "The check \"{{ $labels.check }}\" of replica {{ $labels.pod }} {{ $labels.instance }} has failed for \
                      10 minutes.",
        meaning: "The replica starts and waits for something, or a part of it does not work. The check `start` is about what \
                  it waits for: the API server, the keyring, or the CRD. A check of `/livez` leads to a restart, a check of \
                  `/readyz` takes the replica out of the Service.",
        confirm: "```console\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  $ curl \"http://127.0.0.1:8080/livez?verbose\"\n\
                  ```\n\n\
                  The line of the check says why. [operations.md](operations.md#health) explains the checks.",
        action: "* **`start`**: the line says what the replica waits for. Apply the CRD, correct the permissions, or restore the \
                 keyring: [When keys are lost](operations.md#when-keys-are-lost).\n\
                 * **`caches`**: the operator cannot list objects. Check its roles and bindings.\n\
                 * **`webhook certificate`**: see [ManagedSecretsCertificateExpiring](#managedsecretscertificateexpiring).\n\
                 * **`watches` or `workers`**: Kubernetes restarts the container. If it returns, save the log and report it.",
        risk: "If another replica is ready, users notice nothing. If none is ready, the API server refuses plain values. \
               Delivered Secrets stay.",
    },
    Alert {
        name: "ManagedSecretsRestarting",
        severity: Severity::Warning,
        hold: "0s",
        expression: || {
            "changes(process_start_time_seconds[30m]) > 3\nand on (job, namespace, pod, instance) managed_secrets_build_info"
                .to_owned()
        },
        summary: "A replica of the operator restarts again and again.",
        description: "Replica {{ $labels.pod }} {{ $labels.instance }} has started {{ $value }} times in 30 minutes.",
        meaning: "The process ends, and Kubernetes starts it again. Reasons are: an error that the operator cannot solve, a \
                  lost leadership, a failed liveness probe, or too little memory.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system describe pods -l app.kubernetes.io/name=managed-secrets\n\
                  $ kubectl -n managed-secrets-system logs $POD --previous --tail=20\n\
                  ```\n\n\
                  `Last State` shows the exit code. `OOMKilled` means too little memory. The last line of the log is the error.",
        action: "* **`lost the leadership`**: the replica could not renew its Lease for 10 seconds. Check the load of the API \
                 server and of the node.\n\
                 * **`OOMKilled`**: see [ManagedSecretsMemoryHigh](#managedsecretsmemoryhigh).\n\
                 * **An error about the keyring**: see [When keys are lost](operations.md#when-keys-are-lost).\n\
                 * **A failed liveness probe**: see [ManagedSecretsNotReady](#managedsecretsnotready).",
        risk: "Delivered Secrets stay. Each start lists all objects again, which costs the API server requests. The other \
               replica serves the webhooks.",
    },
    Alert {
        name: "ManagedSecretsMemoryHigh",
        severity: Severity::Warning,
        hold: "10m",
        expression: || "process_resident_memory_bytes / managed_secrets_memory_limit_bytes > 0.85".to_owned(),
        summary: "The operator uses most of its memory limit.",
        description: "Replica {{ $labels.pod }} {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its memory \
                      limit. Above the limit, Kubernetes ends it.",
        meaning: "The operator keeps names, dates and digests of each ManagedSecret, record and target. There are more, or \
                  larger ones, than the limit allows.",
        confirm: "```console\n\
                  $ kubectl get managedsecrets -A --no-headers | awk '{print $1}' | sort | uniq -c | sort -rn | head\n\
                  ```",
        action: "Increase `resources` of the Deployment ([Memory](sizing.md#memory) has figures). If one namespace has \
                 most of the objects, limit it with a ResourceQuota \
                 ([security.md](security.md#what-a-tenant-can-fill)).",
        risk: "No value is at risk. If the process is ended, the other replica continues, and may reach the same limit.",
    },
    Alert {
        name: "ManagedSecretsWatchSilent",
        severity: Severity::Warning,
        hold: "5m",
        expression: || {
            "max by (namespace, pod, instance, watch) (managed_secrets_watch_unanswered_seconds) > 300".to_owned()
        },
        summary: "A watch of the operator hears nothing from the API server.",
        description: "The watch \"{{ $labels.watch }}\" of replica {{ $labels.pod }} {{ $labels.instance }} has heard nothing \
                      from the API server for {{ $value | humanizeDuration }}.",
        meaning: "The API server ends each watch after at most 200 seconds, so a watch that works hears from it at least that \
                  often. The connection hangs, or the API server cannot be reached.",
        confirm: "```console\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  ```\n\n\
                  The line `lists and watches` shows errors. If there is no error, the connection hangs.",
        action: "Check the way from the pod to the API server: a proxy, a load balancer, a NetworkPolicy, the node's network. \
                 After 10 minutes of silence without an error, the liveness probe fails and Kubernetes restarts the \
                 container.",
        risk: "Delivered Secrets stay. The operator learns of changes late: new values are not delivered, and Secrets that \
               are changed or deleted are not repaired.",
    },
    Alert {
        name: "ManagedSecretsWatchFailing",
        severity: Severity::Warning,
        hold: "10m",
        expression: || "max by (namespace, watch) (managed_secrets_watches_failing) > 0".to_owned(),
        summary: "The operator cannot watch objects.",
        description: "{{ $value }} watches \"{{ $labels.watch }}\" have failed for 10 minutes. The operator does not learn of \
                      changes of these objects.",
        meaning: "The API server refuses or fails lists or watches. Usually a permission is missing.",
        confirm: "```console\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  ```\n\n\
                  The line `lists and watches` names each watch, its namespace and the error.",
        action: "* **403**: apply the manifests again; they contain the roles and bindings. With `--namespace`, each \
                 namespace needs its own Role and RoleBinding.\n\
                 * **410 or 5xx**: see [ManagedSecretsApiErrors](#managedsecretsapierrors).\n\
                 * **`sources`**: a namespace with `valueFrom` needs a watch on all of its Secrets.",
        risk: "Delivered Secrets stay. The operator does not see changes in the affected namespaces. All other namespaces work.",
    },
    Alert {
        name: "ManagedSecretsNamespaceWaiting",
        severity: Severity::Warning,
        hold: "15m",
        expression: || "max by (namespace) (managed_secrets_namespaces_waiting) > 0".to_owned(),
        summary: "The operator does not serve all namespaces.",
        description: "The operator in namespace \"{{ $labels.namespace }}\" has not been able to list the objects of \
                      {{ $value }} namespaces since its start. It delivers nothing there.",
        meaning: "At its start, the operator lists the ManagedSecrets and Secrets of each namespace that it serves. For at \
                  least one namespace this has not succeeded. If it serves the whole cluster, all namespaces count as one.",
        confirm: "```console\n\
                  $ curl \"http://127.0.0.1:8080/readyz?verbose\"\n\
                  ```\n\n\
                  The line `caches` names the namespaces, and `lists and watches` says why.",
        action: "Create the namespace, or the operator's Role and RoleBinding in it: `managed-secrets manifests` with the same \
                 `--namespace` prints them. If you no longer need the namespace, remove its flag.",
        risk: "Delivered Secrets stay. In these namespaces, new values are not delivered. All other namespaces work.",
    },
    Alert {
        name: "ManagedSecretsQueueOld",
        severity: Severity::Warning,
        hold: "5m",
        expression: || {
            "max by (namespace) (managed_secrets_queue_oldest_due_seconds{priority=~\"fresh|new|woken\"}) > 60"
                .to_owned()
        },
        summary: "Changes wait too long for a worker of the operator.",
        description: "The oldest change in the queue of namespace \"{{ $labels.namespace }}\" has waited for \
                      {{ $value | humanizeDuration }}.",
        meaning: "More changes arrive than the workers process, or the workers wait for answers of the API server.",
        confirm: "Compare the panels `Queue` and `API requests: duration` of the dashboard. If requests are slow, the API \
                  server is the cause. If they are fast and the queue is long, there are many changes.",
        action: "* **Slow requests**: check the API server and etcd, and slow admission webhooks on Secrets.\n\
                 * **429**: see [ManagedSecretsApiThrottled](#managedsecretsapithrottled).\n\
                 * **Many changes**: find out who makes them: `managed_secrets_repairs_total` counts changes by other programs. \
                 If there is no fault, wait, or increase `--workers`.",
        risk: "Delivered Secrets stay. Changes are delivered late. The operator takes turns between namespaces, so one \
               namespace with many changes does not hold up all others.",
    },
    Alert {
        name: "ManagedSecretsReconcilesFailing",
        severity: Severity::Warning,
        hold: "15m",
        expression: || {
            "sum by (namespace) (rate(managed_secrets_reconcile_duration_seconds_count{result!=\"success\"}[10m]))\n\
             / sum by (namespace) (rate(managed_secrets_reconcile_duration_seconds_count[10m])) > 0.5\n\
             and sum by (namespace) (rate(managed_secrets_reconcile_duration_seconds_count{result!=\"success\"}[10m])) > 0.02"
                .to_owned()
        },
        summary: "Most reconciles of the operator fail.",
        description: "{{ $value | humanizePercentage }} of the reconciles in namespace \"{{ $labels.namespace }}\" failed and \
                      are retried.",
        meaning: "The operator cannot carry out what the objects ask for, and tries again with growing delays. Wrong objects \
                  do not count: the operator reports those in their status and does not retry. A few objects that fail do \
                  not count either: there must be more than one failure a minute.",
        confirm: "```console\n\
                  $ kubectl get managedsecrets -A | grep -v Served\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=50 | grep -i warn\n\
                  ```",
        action: "The reason of the objects and the log say what fails: see [reasons.md](reasons.md) for `ApiUnavailable`, \
                 `OperatorForbidden`, `WriteRefused`, `QuotaExceeded` and `AlteredByAdmission`.",
        risk: "Delivered Secrets stay. Values of the affected objects are not delivered until the cause is removed.",
    },
    Alert {
        name: "ManagedSecretsReconcilePanics",
        severity: Severity::Warning,
        hold: "0s",
        expression: || {
            "sum by (namespace) (increase(managed_secrets_reconcile_duration_seconds_count{result=~\"panic|deadline\"}[15m])) > 0"
                .to_owned()
        },
        summary: "A reconcile of the operator panicked or hung.",
        description: "Reconciles in namespace \"{{ $labels.namespace }}\" panicked, or took longer than their deadline, in the \
                      last 15 minutes.",
        meaning: "A panic is a fault in the operator. A deadline (one minute) is reached if the API server or an admission \
                  webhook does not answer. The operator continues with other objects and tries this one again later.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=-1 | grep -E 'panic|deadline'\n\
                  ```\n\n\
                  The log names the object.",
        action: "* **A panic**: report it with the log line, which contains no value.\n\
                 * **A deadline**: check the API server, etcd, and admission webhooks on Secrets and ManagedSecrets.",
        risk: "The object that the log names is not up to date. Its delivered Secret stays. Other objects are not affected.",
    },
    Alert {
        name: "ManagedSecretsApiErrors",
        severity: Severity::Warning,
        hold: "10m",
        expression: || {
            "sum by (namespace) (rate(managed_secrets_api_requests_total{code=~\"500|502|503|504|none\"}[5m]))\n\
             / sum by (namespace) (rate(managed_secrets_api_requests_total[5m])) > 0.1"
                .to_owned()
        },
        summary: "The API server fails requests of the operator.",
        description: "{{ $value | humanizePercentage }} of the requests of the operator in namespace \
                      \"{{ $labels.namespace }}\" got an error of the API server, or no answer.",
        meaning: "The API server answers with 5xx, or connections break. The code `none` is a request without an answer.",
        confirm: "The panel `API requests: errors` of the dashboard shows codes and resources. Compare with other clients:\n\n\
                  ```console\n\
                  $ kubectl get --raw /readyz?verbose\n\
                  ```",
        action: "Check the API server and etcd. If only one resource is affected, check the admission webhooks for it. If only \
                 the operator is affected, check its way to the API server.",
        risk: "Delivered Secrets stay. The operator retries with growing delays and loses nothing.",
    },
    Alert {
        name: "ManagedSecretsApiThrottled",
        severity: Severity::Warning,
        hold: "10m",
        expression: || {
            "sum by (namespace) (rate(managed_secrets_api_requests_total{code=\"429\"}[5m])) > 0.1".to_owned()
        },
        summary: "The API server throttles the operator.",
        description: "The API server answers {{ $value | humanize }} requests a second of the operator in namespace \
                      \"{{ $labels.namespace }}\" with 429.",
        meaning: "The API server is overloaded, or its priority and fairness settings give the operator too small a share.",
        confirm: "```console\n\
                  $ kubectl get --raw /debug/api_priority_and_fairness/dump_priority_levels\n\
                  ```",
        action: "Find out which client loads the API server: its metric `apiserver_flowcontrol_rejected_requests_total` shows \
                 it. Give the operator's service account a FlowSchema of its own if the share is too small.",
        risk: "Delivered Secrets stay. Changes are delivered late. The operator waits as long as the API server asks.",
    },
    Alert {
        name: "ManagedSecretsWebhookErrors",
        severity: Severity::Warning,
        hold: "10m",
        expression: || {
            "sum by (namespace, verdict) (rate(managed_secrets_webhook_request_duration_seconds_count{verdict=~\"malformed|unread|failed\"}[10m])) > 0"
                .to_owned()
        },
        summary: "The webhooks cannot handle requests of the API server.",
        description: "The webhooks in namespace \"{{ $labels.namespace }}\" get requests that end as \"{{ $labels.verdict }}\". \
                      The API server refuses the plain values in them.",
        meaning: "`malformed`: the body is no AdmissionReview of ManagedSecrets. `unread`: the body is too large, incomplete, or \
                  no JSON. `failed`: the operator did not answer in time, or panicked. Only requests to the secret path count, \
                  so they come from the API server.",
        confirm: "```console\n\
                  $ kubectl -n managed-secrets-system logs -l app.kubernetes.io/name=managed-secrets --tail=200 | grep -iE 'review|panic'\n\
                  ```",
        action: "* **`malformed`**: the webhook configurations were changed. Apply the manifests again.\n\
                 * **`unread`**: an object is larger than the API server should accept, or a proxy between the API server and the \
                 operator cuts requests.\n\
                 * **`failed`**: see [ManagedSecretsWebhookSlow](#managedsecretswebhookslow).",
        risk: "No value is at risk: a plain value that is not sealed is refused. Users get an error when they apply.",
    },
    Alert {
        name: "ManagedSecretsWebhookRefusals",
        severity: Severity::Warning,
        hold: "15m",
        expression: || {
            "sum by (namespace) (rate(managed_secrets_webhook_request_duration_seconds_count{webhook=\"seal\",verdict=\"refused\"}[10m]))\n\
             / sum by (namespace) (rate(managed_secrets_webhook_request_duration_seconds_count{webhook=\"seal\"}[10m])) > 0.5"
                .to_owned()
        },
        summary: "The sealing webhook refuses most plain values.",
        description: "The sealing webhook in namespace \"{{ $labels.namespace }}\" refuses {{ $value | humanizePercentage }} of \
                      the requests.",
        meaning: "The operator cannot seal, because the keyring has no usable key; or a user or a GitOps tool applies a wrong \
                  manifest again and again.",
        confirm: "Apply a plain value with a dry run, and read the message:\n\n\
                  ```console\n\
                  $ kubectl apply --dry-run=server -f examples/weather-api-key.yaml\n\
                  ```\n\n\
                  If this works, the refused manifests are wrong. The audit log shows who sends them.",
        action: "* **The message is about keys**: see [ManagedSecretsKeyringLost](#managedsecretskeyringlost).\n\
                 * **The message is about a field**: tell the owner of the manifest.",
        risk: "No value is at risk. Plain values that are refused are not stored. Delivered Secrets stay.",
    },
    Alert {
        name: "ManagedSecretsWebhookSlow",
        severity: Severity::Warning,
        hold: "10m",
        expression: || {
            "histogram_quantile(0.9, sum by (namespace, le) (rate(managed_secrets_webhook_request_duration_seconds_bucket[10m]))) > 1"
                .to_owned()
        },
        summary: "The webhooks answer slowly.",
        description: "One of ten requests to the webhooks in namespace \"{{ $labels.namespace }}\" takes longer than \
                      {{ $value | humanizeDuration }}. After 10 seconds, the API server stops waiting and refuses the plain value.",
        meaning: "Sealing takes milliseconds. The webhook may have to ask the API server whether the user may read the stored \
                  value (LocalSubjectAccessReview), and waits up to 4 seconds for the answer. Or the container gets too little \
                  CPU.",
        confirm: "The panel `API requests: duration` of the dashboard shows the resource `localsubjectaccessreviews`. If it is \
                  fast, compare the CPU panel with the limits of the node.",
        action: "* **Slow reviews**: check the API server's authorization webhook, if it has one, and etcd.\n\
                 * **Too little CPU**: increase the CPU request of the Deployment.",
        risk: "No value is at risk. Users wait, or get an error and must apply again.",
    },
    Alert {
        name: "ManagedSecretsKeyringRolledBack",
        severity: Severity::Critical,
        hold: "1m",
        expression: || "max by (namespace) (managed_secrets_keyring_rolled_back) > 0".to_owned(),
        summary: "The keyring of the operator is older than before.",
        description: "The keyring in namespace \"{{ $labels.namespace }}\" lacks keys that it had before, or a revoked key may \
                      open again. Values under the missing keys cannot be read.",
        meaning: "An old backup of the keyring was restored over it, etcd was restored, or a program changed the keyring. The \
                  operator compares the keyring with the newest one that it has seen. A leader that has seen it puts the keys \
                  back, so this alert means that no leader has them any more.",
        confirm: "`kubectl msec doctor` names the keys in the line `keyring`, and the operator logs them. Records under a missing \
                  key report `SeedUnknown`.",
        action: "* **You have a later backup**: restore its keyring beside the present one \
                 ([When a keyring is too old](keys.md#when-a-keyring-is-too-old)). The alert ends.\n\
                 * **The keys are permanently lost**: delete the ConfigMap `managed-secrets-sealing-key`. The leader creates \
                 it again, and all replicas continue with the keys that there are, without a restart.\n\
                 * **Nothing was restored**: find out in the audit log who wrote the keyring.",
        risk: "Values that exist only in records under a missing key. Delivered Secrets stay: do not delete them. Until the alert \
               ends, the operator neither creates nor retires a key.",
    },
    Alert {
        name: "ManagedSecretsKmsSilent",
        severity: Severity::Warning,
        hold: "10m",
        expression: || "max by (namespace) (managed_secrets_kms_plugins_silent) > 0".to_owned(),
        summary: "A KMS plugin does not answer.",
        description: "{{ $value }} KMS plugins do not answer the operator in namespace \"{{ $labels.namespace }}\" as they should. A \
                      replica that restarts now does not become ready, and after the time of --kms-grace no new value is \
                      accepted.",
        meaning: "The operator asks each plugin for its status once a minute. The plugin does not run, its KMS does not answer it, \
                  its permission was taken, or the operator may not connect to the socket.",
        confirm: "The log of the replica and `/readyz` name the plugin and the error. Run the conformance test on the node or in \
                  the pod: `managed-secrets kms check unix:///PATH`.",
        action: "* **The plugin does not run**: start it, and read its log.\n\
                 * **The KMS refuses it**: restore the permission or the key in the KMS. A key that is scheduled for deletion must \
                 be restored before its date.\n\
                 * **The KMS will not come back**: while the replicas run, move the keys to another provider \
                 ([Move to another provider](keys.md#move-to-another-provider)). Do not restart the replicas that still have the keys \
                 in memory.",
        risk: "No value at present: everything delivered stays, and the running replicas have the keys in memory. If every replica \
               ends and the key of the KMS is lost, only the recovery key opens the records.",
    },
    Alert {
        name: "ManagedSecretsKmsGraceOver",
        severity: Severity::Critical,
        hold: "1m",
        expression: || "max by (namespace) (managed_secrets_kms_grace_over) > 0".to_owned(),
        summary: "No new value is accepted, because a KMS plugin has been silent for too long.",
        description: "A KMS plugin of namespace \"{{ $labels.namespace }}\" has been silent for longer than --kms-grace. The operator \
                      encrypts no new value until it answers.",
        meaning: "Values that are encrypted now could not be read after a restart if the key of the KMS were lost. So the operator \
                  stops accepting them. Webhooks refuse plain values, and objects with a new value report `KmsUnreachable`.",
        confirm: "`kubectl get managedsecrets -A` shows the objects that wait. The log names the plugin.",
        action: "As for [ManagedSecretsKmsSilent](#managedsecretskmssilent). The operator continues by itself within a minute after \
                 the plugin answers.",
        risk: "New values wait. Everything delivered stays, is repaired when it is changed, and can be read.",
    },
    Alert {
        name: "ManagedSecretsKeysWithoutRecovery",
        severity: Severity::Warning,
        hold: "30m",
        expression: || "max by (namespace) (managed_secrets_keys_without_recovery) > 0".to_owned(),
        summary: "The recovery key does not open every key of the keyring.",
        description: "The recovery key of namespace \"{{ $labels.namespace }}\" does not open {{ $value }} keys of the keyring. \
                      Values under these keys are lost if the key-encryption key is lost.",
        meaning: "The operator seals each key of its own keyring to the recovery keys as soon as it reads it. It cannot write the \
                  keyring, the keys are in a keyring that was restored beside its own, which it does not change, or it was \
                  started without `--recovery-recipient` although the keyring has copies.",
        confirm: "`kubectl msec doctor` names the keys in the line `recovery key`. The log of the leader says why it cannot write \
                  the keyring.",
        action: "* **The operator cannot write the keyring**: solve what the log names; usually an admission policy of another \
                 program or a missing permission.\n\
                 * **The operator has no recovery key any more**: start it with `--recovery-recipient` again. Until then, it \
                 replaces no seed because of its age.\n\
                 * **The keys are in a restored keyring**: keep a backup with the key-encryption key for as long as values are \
                 under these keys ([The recovery key](keys.md#the-recovery-key)).",
        risk: "No value at present. Only a recovery after the loss of the key-encryption key lacks the values under these keys.",
    },
    Alert {
        name: "ManagedSecretsDriftFight",
        severity: Severity::Warning,
        hold: "30m",
        expression: || "sum by (namespace) (rate(managed_secrets_repairs_total[15m])) * 3600 > 12".to_owned(),
        summary: "Another program changes delivered Secrets again and again.",
        description: "The operator in namespace \"{{ $labels.namespace }}\" repairs {{ $value | humanize }} records or targets \
                      an hour, because another program changes or deletes them.",
        meaning: "Two programs write the same Secret. The operator puts back what the ManagedSecret says, and the other program \
                  changes it again.",
        confirm: "```console\n\
                  $ kubectl get events -A --field-selector reason=TargetDriftCorrected\n\
                  ```\n\n\
                  The event names the Secret, and the field managers of the Secret name the other program: \
                  `kubectl -n NAMESPACE get secret NAME -o yaml --show-managed-fields`.",
        action: "Decide who owns the Secret. Exclude it from the other program (GitOps tool, replicator, restore job), or choose \
                 another `target.name` in the ManagedSecret.",
        risk: "The Secret is missing, or pods read the other program's value, until the next repair. Each waits longer than the \
               one before, at most six minutes; meanwhile the status has the reason `RepairDelayed`. The record keeps the value \
               of the ManagedSecret.",
    },
    Alert {
        name: "ManagedSecretsValueExpired",
        severity: Severity::Warning,
        hold: "10m",
        expression: || expiring(Reason::Expired),
        summary: "Some values have expired.",
        description: "{{ $value }} ManagedSecrets have a value that has expired: spec.expires has passed. The operator still \
                      delivers these values.",
        meaning: "The owner of the secret wrote into `spec.expires` when the value stops being good, and this date has \
                  passed. What uses the value probably fails. Or there is a new value, and its owner did not move the date.",
        confirm: "```console\n\
                  $ kubectl msec list -A --expiring=0d\n\
                  $ kubectl -n NAMESPACE describe managedsecret NAME\n\
                  ```\n\n\
                  The message of the condition `Expiring` names the date, and says when the value was changed since.",
        action: "Tell the owner of the namespace: they must set a new value and move `spec.expires` \
                 ([Expiry](guide.md#say-when-a-value-expires)). To accept that the value does not expire, they remove \
                 `spec.expires`.",
        risk: "The operator changes nothing because of the date: what is delivered stays. What issued the value may refuse it.",
    },
    Alert {
        name: "ManagedSecretsValueExpiresSoon",
        severity: Severity::Warning,
        hold: "1h",
        expression: || expiring(Reason::ExpiresSoon),
        summary: "Some values expire soon.",
        description: "{{ $value }} ManagedSecrets have a value that expires soon: the time of spec.expiryWarning before \
                      spec.expires has begun.",
        meaning: "The operator cannot renew a value that it did not generate. It warns from `spec.expiryWarning` (30 days if \
                  absent) before `spec.expires` on.",
        confirm: "```console\n\
                  $ kubectl msec list -A --expiring\n\
                  ```",
        action: "Tell the owner of the namespace: they must set a new value and move `spec.expires` \
                 ([Expiry](guide.md#say-when-a-value-expires)).",
        risk: "Nothing yet: the value is delivered, and is good until the date. The operator continues to deliver it afterwards.",
    },
    Alert {
        name: "ManagedSecretsNotDelivered",
        severity: Severity::Warning,
        hold: "1h",
        expression: || {
            format!(
                "max by (namespace, reason) (managed_secrets_objects{{reason!~\"{}\"}}) > 0",
                pattern(HEALTHY.iter().chain(VALUE_AT_RISK))
            )
        },
        summary: "ManagedSecrets are not ready.",
        description: "{{ $value }} ManagedSecrets have been not ready for an hour, with the reason {{ $labels.reason }}.",
        meaning: "The operator cannot deliver what these objects ask for. Usually their owner must correct them: a name that is \
                  in use, a source that does not exist, a value sealed for another cluster.",
        confirm: "```console\n\
                  $ kubectl get managedsecrets -A | grep REASON\n\
                  $ kubectl -n NAMESPACE describe managedsecret NAME\n\
                  ```",
        action: "[reasons.md](reasons.md) explains each reason, and what to do. Tell the owner of the namespace. \
                 `ApiUnavailable`, `OperatorForbidden` and `NamespaceNotServed` are for you, the administrator.",
        risk: "What is delivered stays. The newest values of these objects do not reach their pods.",
    },
];
