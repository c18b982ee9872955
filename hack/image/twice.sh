#!/usr/bin/env bash
# Builds the image of the present commit in two fresh clones, and fails if their digests differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for folder in one another/deeper; do
    git clone --quiet . "$work/$folder"
    (cd "$work/$folder" && unset CARGO_TARGET_DIR && hack/image.sh "$work/$folder/image")
    rm -rf "${work:?}/$folder/target"
done
cd "$work"
sha256sum one/image/* another/deeper/image/*
diff --brief --recursive one/image another/deeper/image
echo "both builds give the same files"
