#!/usr/bin/env bash
# Builds the operator as one static program without paths of this machine, and prints where it is.
#
#   TARGET=TRIPLE      the Rust target; if not set: this machine's with musl if rustup has installed it, else with the GNU
#                      C library
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

architecture=$(uname -m)
target=${TARGET:-$architecture-unknown-linux-gnu}
musl=$architecture-unknown-linux-musl
if [[ -z ${TARGET:-} && -d $(rustc --print sysroot)/lib/rustlib/$musl ]]; then target=$musl; fi

separator=$'\x1f'
flags=-Ctarget-feature=+crt-static
flags+=$separator--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo
flags+=$separator--remap-path-prefix=$PWD=/source
# With a target, the flags are not for build scripts and procedural macros, which cannot be static.
CARGO_ENCODED_RUSTFLAGS=$flags cargo build --locked --release --target "$target" --package managed-secrets --bin managed-secrets
program=${CARGO_TARGET_DIR:-target}/$target/release/managed-secrets

# The kernel starts a program with an interpreter by a library that an empty image does not have.
if readelf --program-headers "$program" | grep -q INTERP; then
    printf 'error: %s is not static; it would not start in an empty image\n' "$program" >&2
    exit 1
fi
printf '%s\n' "$program"
