#!/usr/bin/env bash
# Cargo's RUSTC_WRAPPER for `make fuzz`: notes coverage in the code that is fuzzed, and leaves the rest as it is. These
# are the flags that cargo-fuzz gives, without a sanitizer: so the stable compiler does.
set -euo pipefail
rustc=$1
shift
case " $* " in
*" --crate-name managed_secrets "* | *" --crate-name serde_json "* | *" --crate-name base64 "*)
    exec "$rustc" "$@" -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
