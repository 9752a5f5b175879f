#!/usr/bin/env bash
# The release build: installs it (`make install`) or packs it (`make release`).
#
#   deploy/release.sh install [PREFIX]   PREFIX/bin/tailwater and its completions; PREFIX is ~/.local unless given
#   deploy/release.sh archive [FOLDER]   FOLDER/tailwater-<version>-<target>.tar.gz and its .sha256; FOLDER is dist unless given
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
usage() { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

build() {
  cargo build --release --locked --workspace --bin tailwater
  binary=$target/release/tailwater
}

case "${1:-}" in
  install)
    prefix=${2:-$HOME/.local}
    build
    install -D -m 755 "$binary" "$prefix/bin/tailwater"
    mkdir -p "$prefix/share/bash-completion/completions"
    "$binary" completions bash >"$prefix/share/bash-completion/completions/tailwater"
    printf 'installed: %s\n' "$prefix/bin/tailwater"
    case ":$PATH:" in
      *":$prefix/bin:"*) ;;
      *) printf '%s is not on your PATH. Add it: export PATH="%s:$PATH"\n' "$prefix/bin" "$prefix/bin" ;;
    esac
    ;;
  archive)
    folder=${2:-dist}
    build
    version=$("$binary" --version | awk '{print $2}')
    name=tailwater-$version-$(rustc -vV | sed -n 's/^host: //p')
    work=$(mktemp -d "${TMPDIR:-/tmp}/tailwater-release.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/$name/completions" "$folder"
    # Without its debug information the program is a quarter of the size; a panic still names its function.
    strip --strip-debug -o "$work/$name/tailwater" "$binary"
    for shell in bash zsh fish; do "$binary" completions "$shell" >"$work/$name/completions/tailwater.$shell"; done
    cp -r LICENSE README.md docs deploy/examples "$work/$name/"
    tar -C "$work" --owner=0 --group=0 --sort=name -czf "$folder/$name.tar.gz" "$name"
    (cd "$folder" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
    printf 'archive: %s (%s)\n' "$folder/$name.tar.gz" "$(du -h "$folder/$name.tar.gz" | cut -f1)"
    ;;
  *) usage ;;
esac
