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

texts_in() { # FOLDER: the files with its licence texts. A library in another language has its text one folder deeper.
    find "$1" -maxdepth 2 -type f \
        \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'copyright*' -o -iname 'notice*' -o -iname 'unlicense*' \) \
        ! -name '*.rs' ! -name '*.toml' | sort
}

origin() { # FOLDER LICENCE: where the package comes from, and under which licence
    printf '%s %s' "$(sed -n 's/^repository = //p' "$1/Cargo.toml" | head -n 1)" "$2"
}

texts_beside() { # ORIGIN: the licence texts of another package of the same repository, under the same licence
    local package licence name version rest folder
    while IFS='|' read -r package licence; do
        read -r name version rest <<<"$package"
        folder=$(printf '%s\n' "$sources"/*/"$name-${version#v}" | head -n 1)
        [[ -f $folder/Cargo.toml && $(origin "$folder" "$licence") == "$1" && -n $(texts_in "$folder") ]] || continue
        texts_in "$folder"
        return
    done <<<"$packages"
}

compiled=$(cargo tree --locked --target "$target" --package managed-secrets --edges normal,no-proc-macro --prefix none --format '{p}|{l}')
packages=$(sed 's/ (\*)$//' <<<"$compiled" | sort -u)
while IFS='|' read -r package licence; do
    read -r name version rest <<<"$package"
    # Those of this workspace have a path.
    [[ $rest != *\(/* ]] || continue
    folders=("$sources"/*/"$name-${version#v}")
    [[ -d ${folders[0]} ]] || fail "the sources of $name ${version#v} are not in $sources"
    texts=$(texts_in "${folders[0]}")
    # It names a licence and has no copy of it.
    [[ -n $texts ]] || texts=$(texts_beside "$(origin "${folders[0]}" "$licence")")
    if [[ -z $texts ]]; then
        [[ $licence == Apache-2.0 ]] || fail "$name ${version#v} ($licence) has no licence text"
        texts=LICENSE
    fi
    while read -r text; do add "$name ${version#v} ($licence)" "$text"; done <<<"$texts"
done <<<"$packages"

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
for file in $(cd "$work" && for list in *.packages; do printf '%s %s\n' "$(sort -u "$list" | head -n 1 | tr ' ' _)" "$list"; done | sort | cut -d ' ' -f 2); do
    printf '\n────────────────────────────────────────────────────────────────────────\n\n'
    sort -u "$work/$file" | sed 's/^/* /'
    printf '\n'
    cat "$work/${file%.packages}.text"
    printf '\n'
done
