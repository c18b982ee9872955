#!/usr/bin/env bash
# Shows the life of one secret with the real kubectl. Prints every command before its output, and checks every step. Runs
# inside `controlplane run`, which starts a control plane, creates CRD and namespace, installs and starts the operator, and
# removes all of it at the end.
#
# The demo begins with a plain value in a manifest, which the operator seals before it is stored in etcd. The API server of
# an existing cluster (USE_EXISTING_CLUSTER=true) may not reach a webhook on this machine; the demo then begins with sealed
# text.
set -euo pipefail

namespace=shop
object=weather-api-key
manifest=weather-api-key.yaml
example=examples/weather-api-key.yaml
first_value=only-an-example
second_value=51d0-second-key
third_value=7c2e-third-key
patience=60s

examples=$PWD/examples
cd "${DEMO_FOLDER:?run this by: make demo}"
ln -s "$examples" examples

bold='' blue='' red='' green='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\033[1m' blue=$'\033[36m' red=$'\033[31m' green=$'\033[32m' plain=$'\033[0m'
fi

chapter() { printf '\n%s── %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s\n' "$*"; }
passed() { printf '%s✓ %s%s\n' "$green" "$*" "$plain"; }

# Sealed text is long: lines are cut to what a terminal shows.
show() { sed -E 's/^(.{130}).+$/\1…/'; }

# Shows a command and runs it. Sets $output to what the command printed, and $status to its exit status.
try() {
    printf '\n%s$ %s%s\n' "$blue" "$*" "$plain"
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

# The same for a command that must fail. Sets $errors to its messages.
refused() {
    try "$@"
    ((status != 0)) || fail "the command should have been refused"
    errors=$(<errors)
}

# Checks that plaintext is refused, with a message that helps and does not repeat it.
refused_in_words() { # VALUE COMMAND…
    local value=$1
    shift
    refused "$@"
    [[ $errors != *"$value"* ]] || fail "the refusal repeats the value"
    [[ $errors == *"managed-secrets seal"* ]] || fail "the refusal does not say how to seal"
    passed "the refusal says how to seal, and does not repeat the value"
}

fail() {
    printf '\n%s✗ %s%s\n' "$red" "$*" "$plain" >&2
    exit 1
}

# check WHAT ACTUAL EXPECTED
check() {
    [[ $2 == "$3" ]] || fail "$1: is \"$2\", should be \"$3\""
    passed "$1"
}

# check_not WHAT ACTUAL UNEXPECTED
check_not() {
    [[ $2 != "$3" ]] || fail "$1: is still \"$2\""
    passed "$1"
}

# Reads one field, without showing the command.
field() { kubectl -n "$namespace" get "$1" "$2" -o "jsonpath=$3"; }
delivered() { field secret "$object" '{.data.value}' | base64 -d; }

# until_true WHAT COMMAND…
until_true() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        [[ -d $DEMO_FOLDER ]] || fail "the control plane has ended"
        ((SECONDS < end)) || fail "gave up after a minute: $what"
        sleep 0.2
    done
    passed "$what"
}

# Lists etcd's files, including its write-ahead log, that contain a text.
search_etcd() { try "grep --recursive --files-with-matches --fixed-strings -e '$1' etcd-data"; }

# nowhere_in_etcd TEXT
nowhere_in_etcd() {
    search_etcd "$1"
    ((status == 1)) && [[ -z $output ]] || fail "a file of etcd contains it, or the search failed"
    passed "no file of etcd contains it"
}

# somewhere_in_etcd TEXT
somewhere_in_etcd() {
    search_etcd "$1"
    [[ $output == *.wal* ]] || fail "the search does not find a text that is in etcd"
    passed "the search finds a text that is in etcd"
}

write_manifest() { # NAME VALUE
    cat >$manifest <<YAML
apiVersion: managedsecrets.dev/v1alpha1
kind: ManagedSecret
metadata:
  name: $object
  namespace: $namespace
spec:
  name: $1
  description: OpenWeather, production plan
  value: $2
YAML
}

chapter "A cluster that knows ManagedSecrets"
run kubectl get crd managedsecrets.managedsecrets.dev
run kubectl get namespace $namespace
public_key() { kubectl -n managed-secrets-system get configmap managed-secrets-sealing-key >/dev/null 2>&1; }
until_true "the operator has published the key to seal with" public_key

if [[ ${USE_EXISTING_CLUSTER:-} == true ]]; then
    chapter "Plaintext is refused before it is stored, and not repeated"
    note "On an existing cluster, the API server may not reach a webhook on this machine, so no webhook seals values."
    refused_in_words $first_value kubectl -n $namespace apply -f $example
else
    chapter "A plain value in a manifest"
    called() { kubectl -n $namespace apply --dry-run=server -f $example >/dev/null 2>&1; }
    until_true "the API server calls the operator to have values sealed" called
    run cat $example
    run kubectl -n $namespace apply -f $example
    run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
    run kubectl -n $namespace get msec
    check "the first value is version 1" "$(field msec $object '{.status.version}')" 1

    chapter "The operator sealed it before it was stored: neither kubectl nor etcd shows it"
    run kubectl -n $namespace get msec $object -o yaml
    [[ $output != *"$first_value"* ]] || fail "the object contains the plain value"
    sealed=$(field msec $object '{.spec.value}')
    [[ $sealed == mss1.* ]] || fail "this is not sealed text"
    passed "the object and kubectl's copy of the manifest contain sealed text"
    somewhere_in_etcd "$(field msec $object '{.metadata.uid}')"
    nowhere_in_etcd $first_value

    chapter "Apply the plain manifest again, unchanged: nothing changes"
    before=$(field msec $object '{.metadata.resourceVersion}')
    run kubectl -n $namespace diff -f $example
    check "kubectl diff shows no difference" "$output" ""
    run kubectl -n $namespace apply -f $example
    note "(kubectl prints this whenever it has sent a request.)"
    check "the ManagedSecret's resourceVersion did not change" "$(field msec $object '{.metadata.resourceVersion}')" "$before"

    chapter "With the operator frozen: plaintext is refused, and nothing else"
    kill -STOP "$(<operator.pid)"
    write_manifest WEATHER_API_KEY $second_value
    refused_in_words $second_value kubectl apply -f $manifest
    run kubectl -n $namespace label msec $object team=weather
    kill -CONT "$(<operator.pid)"
fi

chapter "Seal the value for one object of one namespace: this file may go to Git"
run "printf %s $first_value | managed-secrets seal --namespace $namespace --name $object"
sealed=$output
[[ $sealed == mss1.* ]] || fail "this is not sealed text"
write_manifest WEATHER_API_KEY "$sealed"
run cat $manifest
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
id=$(field msec $object '{.status.id}')
check "it is version 1" "$(field msec $object '{.status.version}')" 1

chapter "What pods mount: an ordinary Secret, which etcd keeps as it keeps every Secret"
run kubectl -n $namespace get secret $object -o yaml
check "the delivered value equals the sealed one" "$(delivered)" $first_value
[[ ! -d etcd-data ]] || somewhere_in_etcd $first_value

chapter "Apply it again, unchanged: nothing changes"
before=$(field msec $object '{.metadata.resourceVersion}') secret_before=$(field secret $object '{.metadata.resourceVersion}')
run kubectl apply -f $manifest
[[ $output == *unchanged* ]] || fail "kubectl saw a change"
check "the ManagedSecret's resourceVersion did not change" "$(field msec $object '{.metadata.resourceVersion}')" "$before"
check "the Secret's resourceVersion did not change" "$(field secret $object '{.metadata.resourceVersion}')" "$secret_before"

chapter "A new value"
run "printf %s $second_value | managed-secrets seal --namespace $namespace --name $object"
sealed=$output
write_manifest WEATHER_API_KEY "$sealed"
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
check "the value is version 2" "$(field msec $object '{.status.version}')" 2
check "the id is the same" "$(field msec $object '{.status.id}')" "$id"
check "pods get the new value" "$(delivered)" $second_value

chapter "A rename: only the name changes"
value_moved=$(field msec $object '{.status.valueUpdatedTime}')
old_record=$(field msec $object '{.status.record.name}')
write_manifest OPENWEATHER_KEY "$sealed"
run kubectl apply -f $manifest
run kubectl -n $namespace wait --for=condition=Ready msec/$object --timeout=$patience
run kubectl -n $namespace get msec --field-selector spec.name=OPENWEATHER_KEY
check "the effective name" "$(field msec $object '{.status.name}')" OPENWEATHER_KEY
check "the id is the same" "$(field msec $object '{.status.id}')" "$id"
check "the value's version is the same" "$(field msec $object '{.status.version}')" 2
check "the value's date is the same" "$(field msec $object '{.status.valueUpdatedTime}')" "$value_moved"
check "pods notice nothing" "$(delivered)" $second_value
record=$(field msec $object '{.status.record.name}')
check_not "the record moved to the new name" "$record" "$old_record"

chapter "A name is unique in a namespace"
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

chapter "The record contains the encrypted value, and everything else as plaintext"
run kubectl -n $namespace get secret "$record" -o yaml
check "the record's type" "$(field secret "$record" '{.type}')" managedsecrets.dev/record
check "the record begins with the format's mark" "$(field secret "$record" '{.data.value}' | base64 -d | head -c 4)" MSE1
[[ $(field secret "$record" '{.data.value}' | base64 -d | tr -d '\0') != *"$second_value"* ]] || fail "the record contains the plain value"

chapter "The same with kubectl msec"
run "printf %s $third_value | kubectl msec create DB_PASSWORD -n $namespace --description 'of the orders'"
run kubectl msec list -n $namespace -o table
run kubectl msec value DB_PASSWORD -n $namespace
check "the value is read by name" "$output" $third_value
try kubectl msec create DB_PASSWORD -n $namespace --generate
((status == 1)) && [[ $(<errors) == *"in use"* ]] || fail "the command did not refuse a name that is in use"
passed "the command refuses a name that is in use at once"
run kubectl msec delete DB_PASSWORD -n $namespace --yes

chapter "Deletion: Kubernetes deletes the record and the Secret with their owner, and the waiting object gets the name"
run kubectl -n $namespace delete msec $object
deleted() { ! kubectl -n $namespace get secret "$object" >/dev/null 2>&1; }
until_true "the Secret is deleted" deleted
run kubectl -n $namespace wait --for=condition=Ready msec/second --timeout=$patience
run kubectl -n $namespace get msec
check_not "the second object is a secret of its own" "$(field msec second '{.status.id}')" "$id"

printf '\n%sThat was the story. Every step was checked.%s\n' "$green" "$plain"
