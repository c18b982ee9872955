#!/usr/bin/env bash
# Tests what is shipped on a real cluster: a control plane and two nodes with containerd, in namespaces of this machine.
#
#   hack/e2e.sh              builds the programs and the image, and runs every check; prints each with its time
#   hack/e2e.sh --missing    prints what this machine lacks, one a line, and how to install it; fails if it lacks anything
#
#   ROUNDS=NUMBER            how often the operator is restarted, and its nodes drained (1)
#   KEEP=1                   leaves the cluster running, and prints how to reach and how to end it
#   LOGS=FOLDER              when a check fails, copies the logs of all programs there
#   PROXY=MODE               how Services work: nftables or iptables (kube-proxy), or none (without kube-proxy); the first
#                            that this machine has
#
# It needs root, for namespaces, and some Debian packages. Everything is in one temporary folder; at the end nothing is
# left, running or mounted. Several can run at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
PATH=$PATH:/usr/sbin:/sbin

fail() {
    printf '✗ %s\n' "$*" >&2
    exit 1
}

# ── What the machine must have

cni_folder() {
    local folder
    for folder in /usr/lib/cni /opt/cni/bin; do
        if [[ -x $folder/ptp && -x $folder/host-local ]]; then
            echo $folder
            return
        fi
    done
    return 1
}
is_static() { ! readelf --program-headers "$1" 2>/dev/null | grep -q INTERP; }
can_create_cgroups() {
    local folder=/sys/fs/cgroup
    [[ -d $folder/memory ]] && folder=$folder/memory
    mkdir "$folder/managed-secrets-e2e.$$" 2>/dev/null && rmdir "$folder/managed-secrets-e2e.$$"
}
in_namespaces() { unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc "$@"; }

# The first mode of kube-proxy that works here.
proxy_mode() {
    if [[ -n ${PROXY:-} ]]; then
        echo "$PROXY"
    elif in_namespaces nft add table ip e2e 2>/dev/null; then
        echo nftables
    elif in_namespaces iptables -t nat -N e2e 2>/dev/null; then
        echo iptables
    else
        echo none
    fi
}

missing() {
    local command absent=() packages=()
    for command in containerd:containerd ctr:containerd containerd-shim-runc-v2:containerd runc:runc ip:iproute2 \
        sysctl:procps nsenter:util-linux unshare:util-linux setpriv:util-linux openssl:openssl readelf:binutils busybox:busybox-static; do
        if ! command -v "${command%%:*}" >/dev/null; then
            absent+=("the program ${command%%:*}")
            packages+=("${command#*:}")
        fi
    done
    if command -v busybox >/dev/null && ! is_static "$(command -v busybox)"; then
        absent+=("a busybox that needs no libraries")
        packages+=(busybox-static)
    fi
    if ! cni_folder >/dev/null; then
        absent+=("the CNI plugins ptp and host-local, in /usr/lib/cni or /opt/cni/bin")
        packages+=(containernetworking-plugins)
    fi
    if ((EUID != 0)); then
        absent+=("root")
    elif ((${#packages[@]} > 0)); then
        : # The rest needs these programs.
    elif ! in_namespaces true 2>/dev/null; then
        absent+=("the permission to create namespaces for networks, mounts and processes")
    else
        can_create_cgroups || absent+=("the permission to create cgroups")
        in_namespaces ip link add e2e type bridge 2>/dev/null || absent+=("a kernel with bridges (the module bridge)")
        in_namespaces ip link add e2e type veth 2>/dev/null || absent+=("a kernel with virtual cables (the module veth)")
    fi
    ((${#absent[@]} > 0)) || return 0
    printf '%s\n' "${absent[@]}"
    if ((${#packages[@]} > 0)); then
        printf 'on Debian: apt-get install --no-install-recommends %s\n' "$(printf '%s\n' "${packages[@]}" nftables | sort -u | tr '\n' ' ')"
    fi
    return 1
}

case ${1:-} in
    --missing)
        missing
        exit
        ;;
    "") ;;
    *) fail "unknown argument \"$1\"; see hack/e2e.sh" ;;
esac
if ! lacks=$(missing); then
    fail "this machine lacks what a cluster needs:"$'\n'"$lacks"
fi

# ── The cluster

RUN=$(mktemp -d "${TMPDIR:-/tmp}/managed-secrets-e2e.XXXXXX")
CGROUP=/${RUN##*/}
CNI=$(cni_folder)
PROXY=$(proxy_mode)
SNAPSHOTTER=overlayfs
grep -qw overlay /proc/filesystems || SNAPSHOTTER=native
export RUN CGROUP CNI PROXY SNAPSHOTTER KUBECONFIG=$RUN/keys/admin.kubeconfig
first='' checking=''

in_cluster() { nsenter --target "$first" --net --mount --pid -- "$@"; }
kubectl() { in_cluster kubectl "$@"; }

remove() {
    local tree
    if [[ -n $first ]]; then
        kill -KILL "$first" 2>/dev/null || true
        wait 2>/dev/null || true
    fi
    # Version 1 has a tree for each controller, version 2 has one for all.
    for tree in /sys/fs/cgroup/*"$CGROUP" "/sys/fs/cgroup$CGROUP"; do
        if [[ -d $tree ]]; then until_true 10 find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
    done
    rm -rf "$RUN"
}

# Shows why a check failed, before everything is removed.
explain() {
    {
        kubectl get pods --all-namespaces --output wide || true
        kubectl --namespace $system logs --selector app.kubernetes.io/name=managed-secrets --prefix --tail 30 || true
        kubectl --namespace $system get events || true
        kubectl --namespace $system get endpointslices --output yaml || true
        # Why the API server went on without an answer of the webhooks.
        grep -h "alling webhook" "$RUN/log/apiserver.log" | tail -n 20 || true
        if [[ ! -e $RUN/ready ]]; then tail -n 15 "$RUN"/log/*.log "$RUN/cluster.log"; fi
    } 2>&1 | tail -n 200 >&2
}

end() {
    local status=$?
    trap - EXIT
    if ((status != 0)) && [[ -n $checking ]]; then
        printf '✗ %s%s\n' "$checking" "${detail:+: $detail}" >&2
        if [[ -n $first ]]; then explain; fi
        # The cluster must be removed also if it has no logs yet.
        if [[ -n ${LOGS:-} ]]; then { mkdir -p "$LOGS" && cp "$RUN"/log/*.log "$LOGS/"; } || true; fi
    fi
    if [[ ${KEEP:-} == 1 && -n $first ]]; then
        printf '\nLeft running. To look around, and to end it:\n\n'
        printf '  nsenter --target %s --net --mount --pid env KUBECONFIG=%s PATH=%s bash\n' "$first" "$KUBECONFIG" "$PATH"
        printf '  kill -KILL %s; rm -rf %s\n' "$first" "$RUN"
    else
        remove
    fi
    exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

milliseconds() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
seconds() { # SINCE
    local took=$(($(milliseconds) - $1))
    printf '%d.%d s' $((took / 1000)) $((took % 1000 / 100))
}

# Runs a check, and prints it with its time. A check can set $detail. The first command that fails in it ends the script:
# so a check is never called as a condition, where bash would ignore that.
check() { # WHAT COMMAND…
    local began
    began=$(milliseconds) detail=''
    checking=$1
    shift
    "$@"
    printf '✓ %-8s %s%s\n' "$(seconds "$began")" "$checking" "${detail:+: $detail}"
    checking=''
}

until_true() { # SECONDS COMMAND…
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

start_cluster() {
    mkdir "$RUN/images"
    cp "$image" "$RUN/images/"
    # The pause image only has to stay; the manifests of examples/ name busybox.
    local busybox
    busybox=$(command -v busybox)
    hack/image/archive.sh "$RUN/images/pause.tar" pause:e2e "$platform" \
        '{"User":"65535:65535","Entrypoint":["/sleep","1000000000"]}' "$busybox=busybox:sleep" >/dev/null
    hack/image/archive.sh "$RUN/images/busybox.tar" busybox:1.37 "$platform" \
        '{"Env":["PATH=/bin"],"Cmd":["sh"]}' "$busybox=bin/busybox:sh:cat:sleep" >/dev/null
    hack/image/archive.sh "$RUN/images/kubectl.tar" kubectl:e2e "$platform" \
        '{"Env":["PATH=/bin","HOME=/"]}' "$busybox=bin/busybox:sh:cat:sleep" "$(type -P kubectl)=bin/kubectl" >/dev/null
    # The cluster ends with this script, even if that is killed. It has priority: an API server that gets no processor time
    # for five seconds calls no webhook in time, and refuses plain values, whatever the operator does.
    local how=(nice -n -10)
    if [[ ${KEEP:-} != 1 ]]; then how+=(setpriv --pdeathsig KILL); fi
    "${how[@]}" unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc \
        bash hack/e2e/cluster.sh >"$RUN/cluster.log" 2>&1 </dev/null &
    local outer=$!
    has_child() { first=$(tr -d ' ' <"/proc/$outer/task/$outer/children") && [[ -n $first ]]; }
    until_true 10 has_child
    is_ready_or_ended() { [[ -e $RUN/ready ]] || ! kill -0 "$outer" 2>/dev/null; }
    until_true 300 is_ready_or_ended
    [[ -e $RUN/ready ]]
    detail="2 nodes, kube-proxy: $PROXY"
}

# ── Build

began=$(milliseconds)
tools=$(hack/tools.sh control-plane node helm-4)
while read -r tool; do PATH=${tool%/*}:$PATH; done <<<"$tools"
export PATH
cargo build --locked --example applies
applies_program=${CARGO_TARGET_DIR:-$root/target}/debug/examples/applies
hack/image.sh "$RUN/image"
program=$RUN/image/managed-secrets
image=$(echo "$RUN"/image/*.tar)
platform=${image##*-} platform=${platform%.tar}
printf '── built in %s\n' "$(seconds "$began")"

# ── Check

# shellcheck source=hack/e2e/checks.sh
source hack/e2e/checks.sh
began=$(milliseconds)
check "the cluster is ready" start_cluster
check "the shipped manifests roll out" install_operator
check "a webhook call reaches a replica through the Service: the first plain value is sealed" seal_first_value
check "a program reads the value from its file" read_value
check "a new value reaches the file" read_new_value
check "a rename changes neither pod nor Secret" rename
check "a deleted Secret is back before the pod notices" delete_target
check "examples/pod.yaml succeeds" run_example
check "a minute in which nothing happens" measure_idle
kubectl create namespace applies >/dev/null
for ((round = 1; round <= ${ROUNDS:-1}; round++)); do
    check "round $round: a rolling restart refuses and loses nothing" under_applies restart
    # Twice: the first drain moves all replicas to one node, the second drains that.
    check "round $round: a drain of a replica's node refuses and loses nothing" under_applies drain
    check "round $round: the next drain refuses and loses nothing" under_applies drain
done
id_before=$(id) key_before=$(sealing_key)
check "after an uninstall, a new pod reads the retained value" uninstall
check "the chart installs with the same keys" install_chart
check "helm test passes" test_chart
check "a pod reads the value through the API server and from the Service, with its own tokens" read_through_value_api
check "a new value restarts the workload that needs it once, and its variable is the new one" restart_workload
check "an upgrade of the release refuses and loses nothing" under_applies upgrade_chart
check "after an uninstall of the release, a new pod reads the value, and a namespace is deleted" uninstall_chart
printf '── all checks passed in %s\n' "$(seconds "$began")"
