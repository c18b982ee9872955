#!/usr/bin/env bash
# Checks the dependencies with cargo-deny, built once into the cache when the machine has none.
set -euo pipefail

version=0.20.2
cache=${MANAGED_SECRETS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/managed-secrets}
tools=$cache/tools

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    if [[ ! -x $deny ]]; then
        echo "building cargo-deny $version (first time only, a few minutes) …" >&2
        # A target folder of its own: CARGO_TARGET_DIR would mix its dependencies with ours.
        CARGO_TARGET_DIR=$tools/build cargo install cargo-deny --version "$version" --locked --root "$tools"
        rm -rf "$tools/build"
    fi
fi

"$deny" --all-features check --hide-inclusion-graph bans licenses sources

# Advisories come from a Git repository. Where it can't be reached, that is said and is no failure of this tree.
if timeout 60 "$deny" --all-features fetch db >/dev/null 2>&1; then
    "$deny" --all-features check --hide-inclusion-graph advisories
else
    echo "advisories were not checked: their database can't be fetched from here" >&2
fi
