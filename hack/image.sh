#!/usr/bin/env bash
# Builds the operator's image: one static program on an empty base, as an OCI archive that Docker also loads.
#
#   hack/image.sh [OUTPUT]     OUTPUT is a folder; target/image when it is not given
#
# OUTPUT then holds the archive, its bill of materials (CycloneDX), the licence texts of what the program contains, and the
# program, managed-secrets.
#
# It needs no container builder, no registry and no base image, and prints the archive and its digest. The same commit
# gives the same digest on every machine with the same Rust and C compilers: all dates are the commit's, and no path of
# the machine is in the program.
#
#   IMAGE=NAME:TAG     the name of the image in the archive (managed-secrets:VERSION)
#   TARGET=TRIPLE      the Rust target, as hack/image/program.sh describes it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=${1:-target/image}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

program=$(hack/image/program.sh)
target=${program%/release/*} target=${target##*/}
case $target in
    x86_64-*) platform=amd64 ;;
    aarch64-*) platform=arm64 ;;
    *) fail "the image supports x86_64 and aarch64, not \"$target\"" ;;
esac

version=$(cargo pkgid --locked --package managed-secrets | sed 's/.*[#@]//')
revision=$(git rev-parse HEAD)
[[ -z $(git status --porcelain --untracked-files=no) ]] || revision+=-dirty
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

jq=$(hack/tools.sh jq)
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
mkdir -p "$output"
install "$program" "$output/managed-secrets"
archive=$output/managed-secrets-$version-$platform.tar
sbom=$output/managed-secrets-$version-$platform.cdx.json
compiled=$(cargo tree --locked --target "$target" --package managed-secrets --edges normal,no-proc-macro --prefix none)
metadata=$(cargo metadata --locked --format-version 1 --filter-platform "$target")
"$jq" --arg name managed-secrets --arg created "$created" --arg compiled "$compiled" -f hack/image/sbom.jq \
    <<<"$metadata" >"$sbom"
licenses=$output/THIRD-PARTY-LICENSES
hack/image/licenses.sh "$target" >"$licenses"

# User and group are those of the Deployment. They are numbers, so `runAsNonRoot` can be checked.
config=$("$jq" --compact-output --arg version "$version" --arg revision "$revision" --arg created "$created" '
    .packages[] | select(.name == "managed-secrets") | {
        User: "65532:65532",
        Entrypoint: ["/managed-secrets"],
        Labels: ({
            "org.opencontainers.image.title": .name,
            "org.opencontainers.image.description": .description,
            "org.opencontainers.image.licenses": .license,
            "org.opencontainers.image.version": $version,
            "org.opencontainers.image.revision": $revision,
            "org.opencontainers.image.created": $created,
            "org.opencontainers.image.source": .repository,
        } | with_entries(select(.value)))
    }' <<<"$metadata")
hack/image/archive.sh "$archive" "${IMAGE:-managed-secrets:$version}" "$platform" "$config" \
    "$program=managed-secrets" LICENSE=LICENSE "$licenses=THIRD-PARTY-LICENSES" "$sbom=sbom.cdx.json"
printf '  bill of materials %s: %d packages\n' "$sbom" "$("$jq" '.components | length' "$sbom")"
