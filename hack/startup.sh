#!/usr/bin/env bash
# How long the plugin takes to start, with no cluster: RUNS times (100), as it is released. Prints milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-100}
cargo build --locked --release --package kubectl-msec >&2
program=${CARGO_TARGET_DIR:-target}/release/kubectl-msec
export KUBECONFIG=/nonexistent

microseconds() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }
"$program" explain NameInUse >/dev/null
for ((run = 0; run < runs; run++)); do
    began=$(microseconds)
    "$program" explain NameInUse >/dev/null
    echo $(($(microseconds) - began))
done | sort -n | awk '{ all[NR] = $1 / 1000 }
    END { printf "starts in %.1f ms (median of %d; fastest %.1f, slowest %.1f)\n", all[int((NR + 1) / 2)], NR, all[1], all[NR] }'
