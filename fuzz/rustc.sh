#!/usr/bin/env bash
# Cargo's RUSTC_WRAPPER for `make fuzz`: notes coverage in our own code, and in the generic code it instantiates (most of
# serde_json); macros of others link what is left alone. The flags are those of cargo-fuzz without a sanitizer, so the
# stable compiler does.
set -euo pipefail
rustc=$1
shift
case " $* " in
*" --crate-name managed_secrets"*)
    exec "$rustc" "$@" -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
