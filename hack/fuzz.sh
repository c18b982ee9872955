#!/usr/bin/env bash
# Fuzzes each target with libFuzzer, guided by coverage, FUZZ_SECONDS in all (300). Starts from tests/corpus/; what it
# finds interesting stays in the target folder, what breaks a rule is printed, to be put into tests/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-300}
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# A folder of its own: Cargo does not know that the compiler is given more flags.
CARGO_TARGET_DIR=$target RUSTC_WRAPPER=$PWD/fuzz/rustc.sh cargo build --locked --manifest-path fuzz/Cargo.toml

fuzz() {
    local name=$1 corpus=$2 longest=$3
    mkdir -p "$target/found/$name" "$target/broken/$name"
    printf '── %s, %d s\n' "$name" $((seconds / 3))
    "$target/debug/$name" -max_total_time=$((seconds / 3)) -max_len="$longest" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$target/broken/$name/" -dict=fuzz/tokens.dict \
        "$target/found/$name" "tests/corpus/$corpus"
}
fuzz admission_review admission 65536
fuzz mss1 mss1 32768
fuzz template template 16384
