#!/usr/bin/env bash
# Prints the licence texts of everything that is compiled into the operator's program, so that the image may be passed on.
# Packages whose texts differ in nothing but white space share one. It fails if a package has no text.
#
#   hack/image/licenses.sh TARGET     the Rust target for which the program was built
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${1:?usage: hack/image/licenses.sh TARGET}
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

add() { # WHAT FILE: remembers that WHAT has this text
    local digest
    digest=$(tr -d '[:space:]' <"$2" | sha256sum | cut -c 1-64)
    cp "$2" "$work/$digest.text"
    printf '%s\n' "$1" >>"$work/$digest.packages"
}

compiled=$(cargo tree --locked --target "$target" --package managed-secrets --edges normal,no-proc-macro --prefix none --format '{p}|{l}')
while IFS='|' read -r package licence; do
    read -r name version rest <<<"$package"
    # Those of this workspace have a path.
    [[ $rest != *\(/* ]] || continue
    folders=("$sources"/*/"$name-${version#v}")
    [[ -d ${folders[0]} ]] || fail "the sources of $name ${version#v} are not in $sources"
    # A library in another language has its text one folder deeper.
    texts=$(find "${folders[0]}" -maxdepth 2 -type f \
        \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'copyright*' -o -iname 'notice*' -o -iname 'unlicense*' \) \
        ! -name '*.rs' ! -name '*.toml' | sort)
    if [[ -z $texts ]]; then
        # It names a licence and has no copy of it.
        [[ $licence == Apache-2.0 ]] || fail "$name ${version#v} ($licence) has no licence text"
        texts=LICENSE
    fi
    while read -r text; do add "$name ${version#v} ($licence)" "$text"; done <<<"$texts"
done <<<"$(sed 's/ (\*)$//' <<<"$compiled" | sort -u)"

add "the standard library of $(rustc --version) (MIT OR Apache-2.0)" LICENSE
case $target in
    *-gnu)
        text=/usr/share/common-licenses/LGPL-2.1
        [[ -f $text ]] || fail "the program contains the GNU C library, and its licence is not in $text: build with musl (docs/image.md)"
        add "the GNU C library (LGPL-2.1-or-later); with the sources and hack/image/program.sh you can link another version of it" "$text"
        ;;
    *-musl)
        text=$(rustc --print sysroot)/share/doc/rust/licenses/MIT.txt
        [[ -f $text ]] || fail "the program contains musl, and its licence is not in $text"
        add "musl (MIT), copyright © 2005-2020 Rich Felker and contributors" "$text"
        ;;
esac

printf 'The program managed-secrets contains the software below. Each list is followed by the licence text that it comes with.\n'
for packages in $(cd "$work" && for file in *.packages; do printf '%s %s\n' "$(sort -u "$file" | head -n 1 | tr ' ' _)" "$file"; done | sort | cut -d ' ' -f 2); do
    printf '\n────────────────────────────────────────────────────────────────────────\n\n'
    sort -u "$work/$packages" | sed 's/^/* /'
    printf '\n'
    cat "$work/${packages%.packages}.text"
    printf '\n'
done
