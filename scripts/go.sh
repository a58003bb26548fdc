#!/usr/bin/env bash
# Prints the path of a go command that is new enough for go.mod, and downloads one if the machine has none.
#
# A toolchain is a module, so even an old go can download a new one from the module proxy and verify its checksum. The
# downloaded files are not executable.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

want=$(sed -n 's/^toolchain go//p' "$root/go.mod")
[ -n "$want" ] || want=$(sed -n 's/^go //p' "$root/go.mod")
least=$(sed -n 's/^go //p' "$root/go.mod")

# enough GO: succeeds if its version is at least the go version in go.mod.
enough() {
  local have
  have=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n%s\n' "$least" "${have#go}" | sort -V | head -n 1)" = "$least" ]
}

own=$root/.cache/go/bin/go
for go in "$(command -v go || true)" /usr/local/go/bin/go "$own"; do
  if [ -n "$go" ] && [ -x "$go" ] && enough "$go"; then
    echo "$go"
    exit 0
  fi
done

seed=$(command -v go || true)
if [ -z "$seed" ]; then
  "$root/scripts/packages.sh" ca-certificates golang-go >&2
  seed=$(command -v go)
fi
version=v0.0.1-go$want.linux-$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
(cd "$work" && GOTOOLCHAIN=local GOFLAGS=-mod=mod GOMODCACHE=$work/mod "$seed" mod download "golang.org/toolchain@$version") >&2
mkdir -p "$root/.cache"
chmod -R u+w "$work/mod/golang.org/toolchain@$version"
chmod -R a+x "$work/mod/golang.org/toolchain@$version"/{bin,pkg/tool}
rm -rf "$root/.cache/go"
mv "$work/mod/golang.org/toolchain@$version" "$root/.cache/go"
echo "$own"
