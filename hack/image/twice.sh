#!/usr/bin/env bash
# Builds the image of the present commit here and in a fresh clone in another folder, and fails if a file differs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -z $(git status --porcelain) ]] || { echo "error: commit your changes first: a clone does not have them" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hack/image.sh "$work/here"
git clone --quiet . "$work/clone"
(cd "$work/clone" && unset CARGO_TARGET_DIR && hack/image.sh "$work/there")
diff --brief --recursive "$work/here" "$work/there"
echo "both builds give the same files"
