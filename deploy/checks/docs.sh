#!/usr/bin/env bash
# Are the pages true, as far as a machine can tell? Every relative link leads to a file (and its #anchor to a heading), and every
# error code has its page and every page its code. What is generated from the code is held against it by the tests.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

pages() { find . -name '*.md' -not -path './target/*' -not -path './.git/*' -not -path '*/node_modules/*' | sort; }

failures=0
fail() { printf 'docs: %s\n' "$*" >&2; failures=$((failures + 1)); }

# link TAB line number, for every inline link outside of code blocks.
links() {
  perl -ne 'if (/^\s*```/) { $code = !$code } next if $code; s/`[^`]*`//g;
    while (/\[[^\]]*\]\(([^)\s]+)(?:\s+"[^"]*")?\)/g) { print "$1\t$.\n" }' "$1"
}

# The anchors that headings get on the usual hosts.
anchors() {
  perl -CSD -ne 'if (/^\s*```/) { $code = !$code } next if $code;
    if (/^#+\s+(.*?)\s*$/) { $_ = lc $1; s/[`*]//g; s/[^\w\s-]//g; s/\s/-/g; print "$_\n" }' "$1"
}

checked=0
while IFS= read -r page; do
  while IFS=$'\t' read -r link line; do
    case "$link" in http://* | https://* | mailto:*) continue ;; esac
    checked=$((checked + 1))
    path=${link%%#*}
    if [ -n "$path" ]; then target="$(dirname "$page")/$path"; else target=$page; fi
    if [ ! -e "$target" ]; then
      fail "$page:$line: the link $link leads nowhere"
    elif [ "$link" != "$path" ] && [ -f "$target" ] && ! anchors "$target" | grep -qxF -- "${link#*#}"; then
      fail "$page:$line: $target has no heading for #${link#*#}"
    fi
  done < <(links "$page")
done < <(pages)

codes=$(perl -0ne 'if (/codes!\s*\{\n(.*?)\n\}/s) { $_ = $1; print "$1\n" while /= "([a-z_]+)",/g }' router/core/src/code.rs | sort)
[ -n "$codes" ] || fail "no codes were found in router/core/src/code.rs"
written=$(find docs/errors -name '*.md' -not -name README.md -exec basename {} .md \; | sort)
while IFS= read -r code; do
  [ -z "$code" ] || fail "docs/errors/$code.md is missing: what it means, why, what to do, an example"
done < <(comm -23 <(echo "$codes") <(echo "$written"))
while IFS= read -r code; do
  [ -z "$code" ] || fail "docs/errors/$code.md is a page of a code that does not exist"
done < <(comm -13 <(echo "$codes") <(echo "$written"))
while IFS= read -r page; do
  [ "$(wc -c <"$page")" -ge 200 ] || fail "$page says next to nothing"
done < <(find docs/errors -name '*.md' | sort)

deploy/checks/tidy.pl || failures=$((failures + 1))

[ "$failures" -eq 0 ] || { printf 'docs: %d problems\n' "$failures" >&2; exit 1; }
printf 'docs: %d links and %d codes are right\n' "$checked" "$(echo "$codes" | wc -l)"
