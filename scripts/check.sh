#!/usr/bin/env bash
# make check: what CI runs, cheapest first. Stops at the first thing that is wrong.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
go=$(scripts/go.sh)
# What is compiled to be looked at is then there for the build: all but the race tests share it.
export CGO_ENABLED=0
tool() { "$go" tool -modfile=tools/go.mod "$@"; }

formatted() {
  local bad
  bad=$(gofmt -l $(git ls-files '*.go' && git ls-files --others --exclude-standard '*.go'))
  [ -z "$bad" ] || { echo "not formatted: $bad; make fmt"; return 1; }
}
modern() {
  local diff
  diff=$("$go" fix -diff ./... 2>&1) || true
  [ -z "$diff" ] || { echo "$diff"; return 1; }
}
alive() {
  local dead
  dead=$(tool deadcode -test ./...)
  [ -z "$dead" ] || { echo "$dead"; return 1; }
}
each_example() {
  local dir
  for dir in examples/*/; do
    [ -f "$dir/go.mod" ] || continue # made from packages, or in another language
    (cd "$dir" && "$@") || return 1
  done
}
# one_fuzz PACKAGE NAME: once more when go test only ran out of time as it ended a worker, which it reports as a failure.
one_fuzz() {
  local out
  for _ in 1 2; do
    out=$("$go" test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-3s}" -fuzzminimizetime 1x "$1" 2>&1) && return 0
    [[ $out == *'context deadline exceeded'* && $out != *'Failing input'* ]] || break
  done
  echo "$out"
  return 1
}
fuzz() {
  local file pkg name
  for file in $(git ls-files 'internal/*_test.go' && git ls-files --others --exclude-standard 'internal/*_test.go'); do
    pkg=./$(dirname "$file")
    for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
      echo "$pkg $name"
      one_fuzz "$pkg" "$name" || return 1
    done
  done
}

step 'install what the tests need'       scripts/packages.sh buildah ca-certificates curl e2fsprogs gcc iproute2 libc6-dev libseccomp-dev mmdebstrap pkg-config skopeo
step 'gofmt'                             formatted
step 'go vet'                            "$go" vet ./...
step 'go fix'                            modern
step 'staticcheck'                       tool staticcheck ./...
step 'deadcode'                          alive
step 'go vet of the examples'            each_example "$go" vet ./...
step 'build penstock, shim and runc'     make --no-print-directory build
step 'build the examples'                make --no-print-directory langdetect chat
echo 'go test -race ./...'
CGO_ENABLED=1 "$go" test -race -json ./... | "$go" run ./test/skips
step 'tests of the examples'             each_example "$go" test ./...
step 'fuzz smoke'                        fuzz
echo "All good after $((SECONDS - began)) s."
