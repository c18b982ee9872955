# shellcheck shell=bash disable=SC2034,SC2154
# The checks of hack/e2e.sh, which sources this file. Each ends with the first command that fails, and may set $detail.

system=managed-secrets-system
replicas() { kubectl --namespace $system get deployment managed-secrets --output "jsonpath={.status.readyReplicas}"; }
operator_pods() { kubectl --namespace $system get pods --selector app.kubernetes.io/name=managed-secrets --output "$1"; }

install_operator() {
    kubectl apply --filename "$root/crds" >/dev/null
    kubectl apply --filename "$root/deploy/manifests.yaml" >/dev/null
    await_operator
}

await_operator() {
    kubectl --namespace $system rollout status deployment/managed-secrets --timeout=120s >/dev/null
    [[ $(replicas) == 2 ]]
    detail="2 ready, on $(operator_pods "jsonpath={.items[*].spec.nodeName}"), after $(start_times)"
}

# The seconds from the start of each replica's program until it was ready. Kubernetes counts in whole seconds.
start_times() {
    local started ready times=()
    while read -r started ready; do
        times+=("$(($(date -d "$ready" +%s) - $(date -d "$started" +%s))) s")
    done < <(operator_pods 'jsonpath={range .items[*]}{.status.containerStatuses[0].state.running.startedAt} {.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}')
    printf '%s, ' "${times[@]}" | sed 's/, $//'
}

# What each replica uses in a minute in which nothing happens. Fails only if that cannot be read.
measure_idle() {
    local id before=() after=() i=0 memory
    while read -r id; do before+=("$(nanoseconds "$id")"); done < <(containers)
    sleep 60
    while read -r id; do
        after[i]=$(nanoseconds "$id")
        memory=$(($(figure "$id" memory.usage_in_bytes memory.current) / 1000000))
        detail+="${detail:+; }0.$(printf '%04d' $(((after[i] - before[i]) / 6000000))) of a core, $memory MB"
        i=$((i + 1))
    done < <(containers)
    ((i == 2))
}
containers() { operator_pods 'jsonpath={range .items[*]}{.status.containerStatuses[0].containerID}{"\n"}{end}' | sed 's|.*//||'; }
# The content of a file in the container's cgroup, which has another name in each version of cgroups.
figure() { # ID FILE…
    local id=$1 file found
    for file in "${@:2}"; do
        found=$(find /sys/fs/cgroup -path "*$id*" -name "$file" -print -quit)
        if [[ -n $found ]]; then
            cat "$found"
            return
        fi
    done
    return 1
}
nanoseconds() { figure "$1" cpuacct.usage 2>/dev/null || figure "$1" cpu.stat | awk '/^usage_usec/ { print $2 * 1000 }'; }

reader() { kubectl --namespace shop "$@"; }
# All values that the program has seen, in one line.
seen() { reader logs --selector app=reader --tail -1 | tr '\n' ' '; }
has_seen() { [[ $(seen) == "$1 " ]]; }
reader_pod() { reader get pods --selector app=reader --output "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[*].restartCount}"; }
target() { reader get secret reader --output "jsonpath={.metadata.uid} {.data.value}"; }
id() { reader get managedsecret reader --output "jsonpath={.status.id}"; }
sealing_key() { kubectl --namespace $system get configmap managed-secrets-sealing-key --output "jsonpath={.data}"; }

# Directly after "rolled out", without a second try: a replica that is ready seals.
seal_first_value() {
    kubectl create namespace shop >/dev/null
    reader apply --filename "$root/hack/e2e/reader.yaml" >/dev/null
    [[ $(reader get managedsecret reader --output "jsonpath={.spec.value}") == mss1.* ]]
}

read_value() {
    reader rollout status deployment/reader --timeout=60s >/dev/null
    until_true 30 has_seen "first-value"
    pod=$(reader_pod)
}

read_new_value() {
    reader patch managedsecret reader --type merge --patch '{"spec": {"value": "second-value"}}' >/dev/null
    until_true 90 has_seen "first-value second-value"
}

rename() {
    local before
    before=$(target)
    reader patch managedsecret reader --type merge --patch '{"spec": {"name": "RENAMED"}}' >/dev/null
    reader wait managedsecret/reader --for "jsonpath={.status.name}=RENAMED" --timeout=30s >/dev/null
    [[ $(target) == "$before" && $(reader_pod) == "$pod" ]]
    has_seen "first-value second-value"
}

# The kubelet reads mounted Secrets every five seconds. The file must have had one value for two of these periods after the
# Secret returned.
delete_target() {
    local before began
    before=$(target)
    reader delete secret reader >/dev/null
    began=$(milliseconds)
    is_back() { local now; now=$(target 2>/dev/null) && [[ ${now#* } == "${before#* }" && $now != "$before" ]]; }
    until_true 30 is_back
    detail="back after $(seconds "$began")"
    has_no_change_for 12
    [[ $(reader_pod) == "$pod" ]]
}
has_no_change_for() { # SECONDS
    local deadline=$((SECONDS + $1))
    while ((SECONDS < deadline)); do
        has_seen "first-value second-value" || return 1
        sleep 0.5
    done
}

run_example() {
    reader apply --filename "$root/examples/pod.yaml" >/dev/null
    reader wait pod/reader --for "jsonpath={.status.phase}=Succeeded" --timeout=60s >/dev/null
}

# All replicas ready, and no pod of an earlier one left.
is_settled() {
    local wanted
    wanted=$(kubectl --namespace $system get deployment managed-secrets --output "jsonpath={.spec.replicas}")
    [[ $(replicas) == "$wanted" && $(operator_pods name | wc -l) == "$wanted" ]]
}

# Runs a command while plain values are applied. Fails if one of them is refused or lost. The command is called as a
# condition: it must return its failures.
under_applies() { # COMMAND…
    local applies input status=0
    mkfifo "$RUN/input"
    in_cluster "$applies_program" --namespace applies <"$RUN/input" >"$RUN/applies" 2>&1 &
    applies=$!
    exec {input}>"$RUN/input"
    "$@" || status=1
    # Values must still be sealed when the last connections have ended.
    until_true 120 is_settled || status=1
    exec {input}>&-
    wait $applies || status=1
    rm "$RUN/input"
    detail=$(<"$RUN/applies")
    return $status
}

restart() {
    kubectl --namespace $system rollout restart deployment/managed-secrets >/dev/null || return 1
    kubectl --namespace $system rollout status deployment/managed-secrets --timeout=180s >/dev/null
}

drain() {
    local node
    node=$(operator_pods "jsonpath={.items[0].spec.nodeName}") || return 1
    kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --force --timeout=180s >/dev/null 2>&1 || return 1
    until_true 120 is_settled || return 1
    kubectl uncordon "$node" >/dev/null
}

uninstall() {
    # As docs/install.md describes it.
    kubectl delete managedsecrets --all --all-namespaces >/dev/null
    owned() { kubectl get secrets --all-namespaces --selector managedsecrets.dev/role --output "jsonpath={.items[*].metadata.ownerReferences[*].name}"; }
    are_deleted() { [[ -z $(owned) ]]; }
    until_true 60 are_deleted
    kubectl delete --filename "$root/crds" >/dev/null
    "$program" manifests --without-operator-namespace >"$RUN/manifests.yaml"
    kubectl delete --ignore-not-found --filename "$RUN/manifests.yaml" >/dev/null
    reads_in_a_new_pod
}

# The pod goes on, and the kubelet delivers the same value to a new one.
reads_in_a_new_pod() {
    reader rollout restart deployment/reader >/dev/null
    reader rollout status deployment/reader --timeout=60s >/dev/null
    has_one_pod() { [[ $(reader get pods --selector app=reader --output name | wc -l) == 1 ]]; }
    until_true 30 has_one_pod
    until_true 30 has_seen "second-value"
}

# As docs/helm.md describes it, in the namespace that the uninstall has kept.
helm() {
    HELM_CACHE_HOME=$RUN/helm HELM_CONFIG_HOME=$RUN/helm HELM_DATA_HOME=$RUN/helm \
        in_cluster helm --namespace $system "$@"
}
chart=$root/deploy/charts/managed-secrets

install_chart() {
    helm install managed-secrets "$chart" --set valueApi.enabled=true --set restarts.enabled=true >/dev/null
    await_operator
    [[ $(sealing_key) == "$key_before" ]]
    sed 's/first-value/second-value/; s/name: READER/name: RENAMED/' hack/e2e/reader.yaml >"$RUN/reader.yaml"
    reader apply --filename "$RUN/reader.yaml" >/dev/null
    reader wait managedsecret/reader --for condition=Ready --timeout=60s >/dev/null
    [[ $(id) == "$id_before" ]]
    detail+="; id and sealing key are the same"
}

test_chart() { helm test managed-secrets --timeout 90s >/dev/null; }

read_through_value_api() {
    local service
    kubectl wait --for=condition=Available apiservice/v1alpha1.values.managedsecrets.dev --timeout=60s >/dev/null
    service=$(kubectl get apiservice v1alpha1.values.managedsecrets.dev --output "jsonpath={.spec.caBundle}")
    base64 -d <<<"$service" >"$RUN/ca.crt"
    service=$(kubectl --namespace $system get service managed-secrets --output "jsonpath={.spec.clusterIP}")
    # Without kube-proxy, no packet reaches the address of a Service.
    if [[ $PROXY == none ]]; then service=$(operator_pods "jsonpath={.items[0].status.podIP}"):8443; fi
    reader create configmap value-api --from-literal "address=$service" --from-file "ca.crt=$RUN/ca.crt" >/dev/null
    reader apply --filename "$root/hack/e2e/value-reader.yaml" >/dev/null
    reader wait pod/value-reader --for "jsonpath={.status.phase}=Succeeded" --timeout=90s >/dev/null
    # Between them are the errors of kubectl, until the permission was known.
    [[ $(reader logs value-reader | grep -E "^(through|from) the ") == $'through the API server: second-value\nfrom the Service: second-value' ]]
}

# The variable of a running program never changes. A rollout that has ended has one pod; revisions count the rollouts.
restart_workload() {
    reader apply --filename "$root/hack/e2e/restarted.yaml" >/dev/null
    reader rollout status deployment/restarted --timeout=60s >/dev/null
    is_marked() { [[ -n $(reader get deployment restarted --output 'jsonpath={.metadata.annotations.restarts\.managedsecrets\.dev/restarted}') ]]; }
    until_true 60 is_marked
    [[ $(revision) == 1 ]]
    reader patch managedsecret restarted --type merge --patch '{"spec": {"value": "second-value"}}' >/dev/null
    is_restarted() { [[ $(revision) == 2 ]]; }
    until_true 60 is_restarted
    reader rollout status deployment/restarted --timeout=60s >/dev/null
    has_new_value() { [[ $(reader logs --selector app=restarted --tail -1) == second-value ]]; }
    until_true 30 has_new_value
    # Once: no other change follows when the replica that leads is replaced.
    restart
    sleep 15
    [[ $(revision) == 2 ]]
}
revision() { reader get deployment restarted --output 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}'; }

upgrade_chart() {
    helm upgrade managed-secrets "$chart" --reset-then-reuse-values --set logFormat=human >/dev/null || return 1
    kubectl --namespace $system rollout status deployment/managed-secrets --timeout=180s >/dev/null || return 1
    [[ $(operator_pods "jsonpath={.items[*].spec.containers[*].args}") == *--log-format=human* ]]
}

# Without its server, the value API would keep every namespace from being deleted.
uninstall_chart() {
    helm uninstall managed-secrets >/dev/null
    kubectl delete namespace applies --timeout=60s >/dev/null
    reads_in_a_new_pod
}
