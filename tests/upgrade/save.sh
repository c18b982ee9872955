#!/usr/bin/env bash
# Saves what an installation of the present commit leaves in a cluster. The integration test `upgrade` upgrades from it.
#
#   tests/upgrade/save.sh VERSION     writes tests/upgrade/VERSION/{crd,manifests,objects}.yaml
#
# It starts a control plane and the operator, creates a secret of every kind, and saves each object of the operator and of
# the namespace "shop" as etcd has it, without its resource version. All keys and values are made for this purpose.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ ${2:-} != inside ]]; then
    cargo build --locked --workspace --bins --example controlplane
    exec cargo run --locked --quiet --example controlplane -- \
        run --create crds --namespace shop --operator -- "$PWD/tests/upgrade/save.sh" "${1:?usage: tests/upgrade/save.sh VERSION}" inside
fi
folder=tests/upgrade/$1
jq=$(hack/tools.sh jq)
mkdir -p "$folder"
cp crds/*.yaml "$folder/crd.yaml"
cp deploy/manifests.yaml "$folder/manifests.yaml"

shop() { kubectl --namespace shop "$@"; }
until_true() { # COMMAND…
    local deadline=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "waited 60 s: $*" >&2; "$@"; }
        sleep 0.2
    done
}
is_ready() { shop wait "managedsecret/$1" --for condition=Ready --timeout=1s; }
has_reason() { [[ $(shop get managedsecret "$1" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].reason}') == "$2" ]]; }
secret() { # NAME SPEC
    shop apply --filename - <<<"{apiVersion: managedsecrets.dev/v1alpha1, kind: ManagedSecret, metadata: {name: $1}, spec: $2}" >/dev/null
}

# A plain value, sealed by the webhook when that is ready; then a second version, a new name, and a change of the target.
until_true secret plain '{name: PLAIN, description: the first, value: plain-first-value}'
until_true is_ready plain
secret plain '{name: RENAMED, description: the second, value: plain-second-value, target: {labels: {app: shop}}}'
is_renamed() { [[ $(shop get managedsecret plain --output 'jsonpath={.status.name} {.status.version}') == "RENAMED 2" ]]; }
until_true is_renamed
# Earlier values, in other shapes and beside the newest, and one of them in its place.
has_version() { [[ $(shop get managedsecret "$1" --output 'jsonpath={.status.version}') == "$2" ]]; }
for version in 1 2 3; do
    secret earlier "{name: EARLIER, history: 3, value: earlier-value-$version, target: {template: {url: 'https://shop:\$(value | urlencode)@db'}, previousKey: previous}}"
    until_true has_version earlier "$version"
done
secret pinned '{name: PINNED, value: pinned-first-value}'
until_true has_version pinned 1
secret pinned '{name: PINNED, value: pinned-second-value, version: 1}'
until_true has_version pinned 2
# A value that is delivered nowhere.
secret undelivered '{name: UNDELIVERED, value: undelivered-value, delivery: None}'
# Values that the operator generates, one under another key of another Secret.
secret generated '{name: GENERATED, generate: {length: 48}}'
secret target '{name: TARGET, generate: {alphabet: AlphanumericSymbols}, target: {name: login, key: password, type: kubernetes.io/basic-auth}}'
# A key beside those of another program.
shop create secret generic legacy --from-literal=username=shop >/dev/null
secret adopting '{name: ADOPTING, value: adopted-value, target: {name: legacy, key: password, adoption: IfUnowned}}'
# A value of another Secret, which changes.
shop create secret generic upstream --from-literal=token=upstream-first-value >/dev/null
secret following '{name: FOLLOWING, valueFrom: {secretKeyRef: {name: upstream, key: token}}}'
until_true is_ready following
shop create secret generic upstream --from-literal=token=upstream-second-value --dry-run=client --output yaml | shop apply --filename - >/dev/null 2>&1
has_value() { [[ $(shop get secret "$1" --output "jsonpath={.data.$2}" | base64 --decode) == "$3" ]]; }
until_true has_value following value upstream-second-value
# A value that outlives its object, one that will, and one that stays as it is.
secret retained '{name: RETAINED, value: retained-value, deletionPolicy: Retain}'
secret retaining '{name: RETAINING, value: retaining-value, deletionPolicy: Retain}'
secret suspended '{name: SUSPENDED, value: suspended-value}'
until_true is_ready retained
shop delete managedsecret retained >/dev/null
until_true is_ready suspended
secret suspended '{name: SUSPENDED, value: suspended-later-value, suspend: true}'
until_true has_reason suspended Suspended
# One that has no secret: another object has its name.
secret conflicting '{name: GENERATED, value: conflicting-value}'
until_true has_reason conflicting NameInUse
for name in plain earlier pinned undelivered generated target adopting following retaining; do until_true is_ready "$name"; done

for namespace in managed-secrets-system shop; do
    kubectl --namespace "$namespace" get managedsecrets,secrets,configmaps --output json --show-managed-fields
done | "$jq" --slurp --yaml-output '
    {apiVersion: "v1", kind: "List", items: [
        .[].items[] | select(.metadata.name != "kube-root-ca.crt") | del(.metadata.resourceVersion)
    ]}' >"$folder/objects.yaml"
echo "$folder: $(grep -c '^  - ' "$folder/objects.yaml") objects"
