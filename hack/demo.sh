#!/usr/bin/env bash
# The story of one secret, told with the real kubectl: every command is shown before its output, and every step is
# checked. Runs inside `controlplane run`, which has started a control plane, made CRD and namespace, started the operator,
# and removes all of it in the end.
set -euo pipefail

namespace=shop
object=weather-api-key
manifest=weather-api-key.yaml
patience=60s

cd "${DEMO_FOLDER:?run this by: make demo}"

chapter() { printf '\n\033[1m── %s\033[0m\n' "$*"; }

# Sealed text is long: lines are cut to what a terminal shows.
show() { sed -E 's/^(.{130}).+$/\1…/'; }

# Shows a command and runs it; what it printed is in $output then, and its status in $status.
try() {
    printf '\n\033[36m$ %s\033[0m\n' "$*"
    status=0
    output=$(bash -c "$*" 2>errors) || status=$?
    show <errors
    [[ -z $output ]] || show <<<"$output"
}

# The same for a command that must succeed.
run() {
    try "$@"
    ((status == 0)) || fail "the command failed"
}

# The same for a command that must not succeed; what it said is in $errors.
refused() {
    try "$@"
    ((status != 0)) || fail "the command should have been refused"
    errors=$(<errors)
}

fail() {
    printf '\n\033[31m✗ %s\033[0m\n' "$*" >&2
    exit 1
}

# check WHAT ACTUAL EXPECTED
check() {
    [[ $2 == "$3" ]] || fail "$1: is \"$2\", should be \"$3\""
    printf '\033[32m✓ %s\033[0m\n' "$1"
}

# check_not WHAT ACTUAL UNEXPECTED
check_not() {
    [[ $2 != "$3" ]] || fail "$1: is still \"$2\""
    printf '\033[32m✓ %s\033[0m\n' "$1"
}

# Reads one field, without showing the command.
field() { kubectl -n "$namespace" get "$1" "$2" -o "jsonpath=$3"; }
delivered() { field secret "$object" '{.data.value}' | base64 -d; }

# until_true WHAT COMMAND…
until_true() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        [[ -d $DEMO_FOLDER ]] || fail "the control plane is gone"
        ((SECONDS < end)) || fail "waited a minute in vain for: $what"
        sleep 0.2
    done
    printf '\033[32m✓ %s\033[0m\n' "$what"
}

write_manifest() { # NAME DESCRIPTION SEALED
    cat >$manifest <<YAML
apiVersion: managedsecrets.dev/v1alpha1
kind: ManagedSecret
metadata:
  name: $object
  namespace: $namespace
spec:
  name: $1
  description: $2
  value: $3
YAML
}

chapter "A cluster that knows ManagedSecrets"
run kubectl get crd managedsecrets.managedsecrets.dev
run kubectl get namespace $namespace
public_key() { kubectl -n managed-secrets-system get configmap managed-secrets-sealing-key >/dev/null 2>&1; }
until_true "the operator has published the key to seal with" public_key

chapter "Plaintext is refused before it is stored, and not repeated"
write_manifest WEATHER_API_KEY '"OpenWeather, production plan"' '"9f1c-first-key"'
refused kubectl apply -f $manifest
[[ $errors != *9f1c* ]] || fail "the refusal repeats the value"
[[ $errors == *"managed-secrets seal"* ]] || fail "the refusal does not say how to seal"

chapter "Seal the key for one object of one namespace, and apply it: this file may go to Git"
run "printf %s 9f1c-first-key | managed-secrets seal --namespace $namespace --name $object"
sealed=$output
[[ $sealed == mss1.* ]] || fail "that is no sealed text"
write_manifest WEATHER_API_KEY '"OpenWeather, production plan"' "$sealed"
run cat $manifest
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
run kubectl -n $namespace get msec
id=$(field msec $object '{.status.id}')
check "the first value is version 1" "$(field msec $object '{.status.version}')" 1

chapter "What pods mount"
run kubectl -n $namespace get secret $object -o yaml
check "the delivered value is the one that was sealed" "$(delivered)" 9f1c-first-key

chapter "Applied again, unchanged: nothing moves"
before=$(field msec $object '{.metadata.resourceVersion}') secret_before=$(field secret $object '{.metadata.resourceVersion}')
run kubectl apply -f $manifest
[[ $output == *unchanged* ]] || fail "kubectl saw a change"
check "the ManagedSecret's resourceVersion" "$(field msec $object '{.metadata.resourceVersion}')" "$before"
check "the Secret's resourceVersion" "$(field secret $object '{.metadata.resourceVersion}')" "$secret_before"

chapter "A new value"
run "printf %s 51d0-second-key | managed-secrets seal --namespace $namespace --name $object"
sealed=$output
write_manifest WEATHER_API_KEY '"OpenWeather, production plan"' "$sealed"
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
check "the value is version 2" "$(field msec $object '{.status.version}')" 2
check "the id is the same" "$(field msec $object '{.status.id}')" "$id"
check "pods get the new value" "$(delivered)" 51d0-second-key

chapter "A rename: only the name moves"
value_moved=$(field msec $object '{.status.valueUpdatedTime}')
old_record=$(field msec $object '{.status.record.name}')
write_manifest OPENWEATHER_KEY '"OpenWeather, production plan"' "$sealed"
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
run kubectl -n $namespace get msec --field-selector spec.name=OPENWEATHER_KEY
check "the name in force" "$(field msec $object '{.status.name}')" OPENWEATHER_KEY
check "the id is the same" "$(field msec $object '{.status.id}')" "$id"
check "the value's version is the same" "$(field msec $object '{.status.version}')" 2
check "the value's date is the same" "$(field msec $object '{.status.valueUpdatedTime}')" "$value_moved"
check "pods notice nothing" "$(delivered)" 51d0-second-key
record=$(field msec $object '{.status.record.name}')
check_not "the record moved to the new name" "$record" "$old_record"

chapter "A name is taken once in a namespace"
cat >second.yaml <<YAML
apiVersion: managedsecrets.dev/v1alpha1
kind: ManagedSecret
metadata: {name: second, namespace: $namespace}
spec:
  name: OPENWEATHER_KEY
  generate: {length: 32}
YAML
run kubectl apply -f second.yaml
in_use() { [[ $(field msec second '{.status.conditions[?(@.type=="Ready")].reason}') == NameInUse ]]; }
until_true "the second object waits" in_use
run kubectl -n $namespace get msec
message=$(field msec second '{.status.conditions[?(@.type=="Ready")].message}')
printf '%s\n' "$message"
[[ $message == *$object* ]] || fail "the message does not name the holder"

chapter "What the backing record holds: everything but the value in clear, and the value encrypted"
run kubectl -n $namespace get secret "$record" -o yaml
check "the record's type" "$(field secret "$record" '{.type}')" managedsecrets.dev/record
check "the record begins with the format's mark" "$(field secret "$record" '{.data.value}' | base64 -d | head -c 4)" MSE1
[[ $(field secret "$record" '{.data.value}' | base64 -d | tr -d '\0') != *second-key* ]] || fail "the value stands there in clear"

chapter "Deletion: the record and the Secret go with their owner, and the name is free for the one who waits"
run kubectl -n $namespace delete msec $object
gone() { ! kubectl -n $namespace get secret "$object" >/dev/null 2>&1; }
until_true "the Secret is gone" gone
run kubectl -n $namespace wait --for=condition=Ready msec/second --timeout=$patience
run kubectl -n $namespace get msec
check_not "the second object is a secret of its own" "$(field msec second '{.status.id}')" "$id"

printf '\n\033[32mThat was the story. Every step was checked.\033[0m\n'
