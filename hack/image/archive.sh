#!/usr/bin/env bash
# Writes an image of one layer as a tar archive, and prints its digest.
#
#   hack/image/archive.sh ARCHIVE NAME:TAG PLATFORM CONFIG SOURCE=NAME[:LINK…] …
#
# Each SOURCE becomes the file NAME, which belongs to root and which every user may read and execute. Each LINK is a
# symbolic link to it, in the same folder. CONFIG is the part "config" of an image configuration, as JSON: https://github.com/opencontainers/image-spec/blob/main/config.md
#
# The archive is an OCI image layout, and has the file that older versions of `docker load` read beside it. Its dates are
# SOURCE_DATE_EPOCH, or 1970 when that is not set, and its order is fixed: equal files give an equal digest. The layer is
# not compressed, so no version of a compressor is part of the digest; registry clients compress it when they push.
set -euo pipefail
export LC_ALL=C
[[ $# -ge 5 ]] || { sed -n '4s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
archive=$1 reference=$2 platform=$3 config=$4
shift 4
# The full form of a short name, as Docker and containerd complete it.
case $reference in
    *.*/* | *:*/* | localhost/*) ;;
    */*) reference=docker.io/$reference ;;
    *) reference=docker.io/library/$reference ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/layer" "$work/image/blobs/sha256"

pack() { # FOLDER ARCHIVE
    (cd "$1" && tar --create --format=ustar --sort=name --mtime="@${SOURCE_DATE_EPOCH:-0}" \
        --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -- *) >"$2"
}

# Moves a file to the blobs. Sets $digest and $size.
store() { # FILE
    digest=$(sha256sum "$1" | cut -c 1-64)
    size=$(stat -c %s "$1")
    mv "$1" "$work/image/blobs/sha256/$digest"
}

for file in "$@"; do
    IFS=: read -r -a names <<<"${file#*=}"
    install -D -m 755 "${file%%=*}" "$work/layer/${names[0]}"
    for link in "${names[@]:1}"; do
        ln -s "${names[0]##*/}" "$work/layer/$(dirname "${names[0]}")/$link"
    done
done
pack "$work/layer" "$work/layer.tar"
store "$work/layer.tar"
layer=$digest layer_size=$size

printf '{"created":"%s","architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)" "$platform" "$config" "$layer" >"$work/config"
store "$work/config"
configuration=$digest configuration_size=$size

oci=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%d},"layers":[{"mediaType":"%s.layer.v1.tar","digest":"sha256:%s","size":%d}]}' \
    $oci $oci "$configuration" "$configuration_size" $oci "$layer" "$layer_size" >"$work/manifest"
store "$work/manifest"

printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
printf '{"schemaVersion":2,"mediaType":"%s.index.v1+json","manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%d,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    $oci $oci "$digest" "$size" "$platform" "$reference" "${reference##*:}" >"$work/image/index.json"
printf '[{"Config":"blobs/sha256/%s","RepoTags":["%s"],"Layers":["blobs/sha256/%s"]}]' \
    "$configuration" "$reference" "$layer" >"$work/image/manifest.json"
pack "$work/image" "$archive"

printf '%s %s\n  digest sha256:%s\n  %d bytes in one layer\n' "$archive" "$reference" "$digest" "$layer_size"
