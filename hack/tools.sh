#!/usr/bin/env bash
# Finds or builds the programs that tests and demo need, and prints the path of each, one a line.
#
#   hack/tools.sh [--while-stdin] PROGRAM…
#
# Programs: etcd, kube-apiserver, kube-controller-manager, kubectl (of the Kubernetes version in K8S: 1.34, 1.36 when
# unset, or 1.37), kube-scheduler, kubelet, kube-proxy (of 1.36), jq, helm-3, helm-4, appliers, evaluator, kms-plugin; or a set:
# control-plane, node, all. The set "all" is what `make test` needs, and does not contain "node".
#
# Each is built once with Go from the module that pins it (tests/controlplane, tests/gitops, tests/monitoring, tests/kms) into a cache outside the tree,
# keyed by version: MANAGED_SECRETS_CACHE, else managed-secrets below the user's cache folder. A lock for each program
# keeps two builds apart, and a program appears under its name only when it is complete. Progress goes to standard error.
#
# --while-stdin ends the build when standard input ends: the caller holds the other end of a pipe, so a build never
# outlives it.
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tests" && pwd)
heartbeat=20

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
say() { printf '%s\n' "$*" >&2; }

if [[ -n ${MANAGED_SECRETS_CACHE:-} ]]; then
    cache=$MANAGED_SECRETS_CACHE
elif [[ -n ${XDG_CACHE_HOME:-} ]]; then
    cache=$XDG_CACHE_HOME/managed-secrets
elif [[ -n ${HOME:-} ]]; then
    cache=$HOME/.cache/managed-secrets
else
    fail "no cache folder: set MANAGED_SECRETS_CACHE, XDG_CACHE_HOME or HOME"
fi

# The version that a module of ours requires of a package.
version() { # MODULE PACKAGE
    local found
    found=$(awk -v package="$2" '{ sub(/^require /, ""); sub(/^[ \t]+/, "") } $1 == package && $2 ~ /^v/ { print substr($2, 2); exit }' "$tests/$1/go.mod")
    [[ -n $found ]] || fail "$tests/$1/go.mod does not require $2"
    printf '%s' "$found"
}

# Sets module, package, folder, name and flags for a program.
describe() { # PROGRAM
    flags="-s -w"
    name=$1
    case $1 in
        etcd)
            module=controlplane/etcd package=go.etcd.io/etcd/server/v3
            version=$(version "$module" "$package")
            folder=$cache/controlplane/etcd-$version
            ;;
        kube-apiserver | kube-controller-manager | kubectl)
            case ${K8S:-1.36} in
                1.34 | 1.36 | 1.37) module=controlplane/kubernetes-${K8S:-1.36} ;;
                *) fail "K8S is \"$K8S\"; it must be 1.34, 1.36 or 1.37" ;;
            esac
            package=k8s.io/kubernetes/cmd/$1
            version=$(version "$module" k8s.io/kubernetes)
            folder=$cache/controlplane/$version
            # Without these flags the programs report v0.0.0.
            local major=${version%%.*} minor=${version#*.} variable=k8s.io/component-base/version.git
            flags+=" -X ${variable}Version=v$version -X ${variable}Major=$major -X ${variable}Minor=${minor%%.*}"
            ;;
        kube-scheduler | kubelet | kube-proxy)
            [[ ${K8S:-1.36} == 1.36 ]] || fail "K8S is \"$K8S\"; a node can be built of 1.36 only"
            describe kubectl
            name=$1 package=k8s.io/kubernetes/cmd/$1
            ;;
        jq)
            module=controlplane/jq package=github.com/itchyny/gojq/cmd/gojq
            version=$(version "$module" github.com/itchyny/gojq)
            folder=$cache/jq-$version
            ;;
        helm-3 | helm-4)
            local helm=helm.sh/helm/v${1#helm-}
            module=gitops/$1 package=$helm/cmd/helm name=helm
            version=$(version "$module" "$helm")
            folder=$cache/helm-$version
            ;;
        appliers | evaluator | kms-plugin)
            # A program of ours: a digest of its source is its version.
            case $1 in
                appliers) module=gitops/appliers ;;
                evaluator) module=monitoring ;;
                kms-plugin) module=kms ;;
            esac
            package=.
            version=$(cd "$tests/$module" && cat -- * | sha256sum | cut -c 1-12)
            folder=$cache/$1-$version
            ;;
        *) fail "unknown program \"$1\"; see hack/tools.sh" ;;
    esac
}

build() { # uses what describe has set
    command -v go >/dev/null || fail "Go is needed to build $name $version into $folder: install Go 1.26 or later from https://go.dev/doc/install"
    local work log began said total="" compiled left text
    # Under the lock: what an interrupted build left here is removed.
    work=$folder/.$name.work
    rm -rf "$work"
    mkdir "$work"
    log=$work/log
    began=$SECONDS said=$SECONDS
    say "building $name $version (once; several minutes for Kubernetes) …"
    # Prints the name of each package as it is compiled. The number of all of them comes from the same files.
    (
        cd "$tests/$module"
        go list -deps "$package" 2>/dev/null | grep -c . >"$work/total.partial" || true
        mv "$work/total.partial" "$work/total"
        CGO_ENABLED=0 GOTMPDIR=$work exec go build -v -trimpath -ldflags "$flags" -o "$work/$name" "$package" 2>"$log"
    ) &
    local go=$!
    while kill -0 "$go" 2>/dev/null; do
        sleep 0.2
        ((SECONDS - said >= heartbeat)) || continue
        said=$SECONDS
        [[ -s $work/total ]] && total=$(<"$work/total")
        compiled=$(grep -cv '^go: ' "$log" 2>/dev/null || true)
        text="building $name $version: $((SECONDS - began)) s"
        if [[ -n $total && ${compiled:-0} -gt 0 && $compiled -le $total ]]; then
            left=$(((SECONDS - began) * (total - compiled) / compiled))
            text+=", $compiled of at most $total packages, about $((left / 60 + 1)) min left"
        elif [[ -z $total ]]; then
            text+=", downloading modules"
        fi
        say "$text"
    done
    if ! wait "$go"; then
        tail -n 15 "$log" >&2
        fail "cannot build $name $version; the lines above are the end of Go's output"
    fi
    mv "$work/$name" "$folder/$name"
    rm -rf "$work"
    say "built $name $version in $((SECONDS - began)) s"
}

# In a subshell, so that the lock ends with it.
find_or_build() ( # PROGRAM
    describe "$1"
    if [[ ! -f $folder/$name ]]; then
        mkdir -p "$folder"
        exec 9>"$folder/.$name.lock"
        if ! flock -n 9; then
            say "waiting for another build of $name $version …"
            flock 9
        fi
        [[ -f $folder/$name ]] || build
    fi
    printf '%s\n' "$folder/$name"
)

if [[ ${1:-} == --while-stdin ]]; then
    shift
    # A child of this shell, in its process group, which the caller made a group of its own.
    { cat >/dev/null; kill -TERM 0; } <&0 &
    watcher=$!
    trap 'kill "$watcher" 2>/dev/null || true' EXIT
fi
[[ $# -gt 0 ]] || fail "usage: hack/tools.sh [--while-stdin] PROGRAM…"
for program in "$@"; do
    case $program in
        control-plane) set -- etcd kube-apiserver kube-controller-manager kubectl ;;
        node) set -- kube-scheduler kubelet kube-proxy ;;
        all) set -- etcd kube-apiserver kube-controller-manager kubectl jq helm-3 helm-4 appliers evaluator kms-plugin ;;
        *) set -- "$program" ;;
    esac
    for one in "$@"; do
        find_or_build "$one"
    done
done
