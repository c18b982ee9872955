#!/usr/bin/env bash
# Tries a third-party KMS plugin: Kubernetes' PKCS#11 plugin over SoftHSM. Runs the conformance test, and
# an operator that moves its keys to the plugin and back.
#
#   hack/softhsm.sh     needs Go, a C compiler, git, and the packages softhsm2 and opensc
#
# SOURCE=FOLDER builds a checkout of https://github.com/kubernetes/kms instead of the commit below.
set -euo pipefail
source=${SOURCE:+$(realpath "$SOURCE")}
cd "$(dirname "$0")/.."
commit=7dc88c042aa2916629d29cb4744e5e76ce418b77

for program in cc git go pkcs11-tool softhsm2-util; do
    command -v "$program" >/dev/null || { echo "softhsm.sh: $program is missing; install Go, a C compiler, git, softhsm2 and opensc" >&2; exit 1; }
done
library=$(find /usr/lib /usr/lib64 /usr/local/lib /opt -name libsofthsm2.so -print -quit 2>/dev/null || true)
[[ -n $library ]] || { echo "softhsm.sh: found no libsofthsm2.so" >&2; exit 1; }

# The path of a socket is short, so not in the folder of the build.
work=$(mktemp -d /tmp/softhsm.XXXXXX)
plugin=
finish() {
    [[ -z $plugin ]] || kill "$plugin" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

if [[ -z $source ]]; then
    source=$work/source
    echo "── download kubernetes/kms at $commit"
    git init --quiet "$source"
    git -C "$source" fetch --quiet --depth 1 https://github.com/kubernetes/kms "$commit"
    git -C "$source" checkout --quiet FETCH_HEAD
fi
echo "── build the plugin"
(cd "$source/internal/plugins/_mock" && CGO_ENABLED=1 go build -o "$work/plugin" .)

echo "── make a token with an AES key"
mkdir "$work/tokens"
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$work/tokens" >"$work/softhsm2.conf"
export SOFTHSM2_CONF=$work/softhsm2.conf
pin=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
softhsm2-util --init-token --free --label kms --pin "$pin" --so-pin "$pin" >/dev/null
# The plugin looks for this label. SoftHSM refuses AES-GCM with a key that was imported.
pkcs11-tool --module "$library" --keygen --key-type aes:32 --login --pin "$pin" --token-label kms --label kms-test \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
printf '{"path": "%s", "tokenLabel": "kms", "pin": "%s"}' "$library" "$pin" >"$work/config.json"

"$work/plugin" -listen-addr "unix://$work/kms.sock" -config-file-path "$work/config.json" &
plugin=$!
deadline=$((SECONDS + 60))
until [[ -S $work/kms.sock ]]; do
    kill -0 "$plugin" 2>/dev/null || { echo "softhsm.sh: the plugin ended" >&2; exit 1; }
    ((SECONDS < deadline)) || { echo "softhsm.sh: the plugin does not listen" >&2; exit 1; }
    sleep 0.2
done

export KMS_SOCKET=unix://$work/kms.sock
echo "── kms check"
cargo run --locked --quiet --bin managed-secrets -- kms check "$KMS_SOCKET"
echo "── the tests that take a given plugin"
cargo test --locked --test integration -- --exact \
    integration::kms::a_plugin_passes_the_conformance_test \
    integration::kms::keyring::keys_move_from_each_provider_to_each_other_one_while_operators_run | tee "$work/tests"
grep -q '^test result: ok. 2 passed' "$work/tests"
