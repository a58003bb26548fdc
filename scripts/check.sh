#!/usr/bin/env bash
# make check: what CI runs, cheapest first. It stops at the first failure.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
go=$(scripts/go.sh)
# Everything but the race tests is compiled without cgo, so that all steps share the build cache.
export CGO_ENABLED=0
tool() { "$go" tool -modfile=tools/go.mod "$@"; }

formatted() {
  local bad
  bad=$(gofmt -l $(git ls-files '*.go' && git ls-files --others --exclude-standard '*.go'))
  [ -z "$bad" ] || { echo "not formatted: $bad; make fmt"; return 1; }
}
# Everyone who clones the repository downloads every tracked file. Large files are made by a program (make chat) or by a
# test.
small() {
  local large
  large=$(git ls-files -z | xargs -0 -I{} find {} -maxdepth 0 -size +1024k)
  [ -z "$large" ] || { echo "tracked files over 1 MiB: $large"; return 1; }
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

step 'install what the tests need'       scripts/packages.sh buildah ca-certificates curl e2fsprogs gcc iproute2 libc6-dev libseccomp-dev mmdebstrap pkg-config python3 skopeo
step 'gofmt'                             formatted
step 'no large files'                    small
step 'go vet'                            "$go" vet ./...
step 'go fix'                            modern
step 'staticcheck'                       tool staticcheck ./...
step 'deadcode'                          alive
step 'go vet of the examples'            each_example "$go" vet ./...
step 'build penstock, shim and runc'     make --no-print-directory build
step 'build the examples'                make --no-print-directory langdetect chat
echo 'go test'
# The timeouts are per package and far above what a busy machine needs, so only a hang exceeds them. test/e2e runs
# without the race detector, which would only see the clients. It runs three packages at a time because they mostly
# wait.
{
  CGO_ENABLED=1 "$go" test -race -timeout 20m -json $("$go" list ./... | grep -v /test/e2e/)
  "$go" test -timeout 30m -p 3 -json ./test/e2e/...
} | "$go" run ./test/report
step 'tests of the examples'             each_example "$go" test ./...
step 'fuzz smoke'                        scripts/fuzz.sh "${FUZZTIME:-1s}"
echo "All good after $((SECONDS - began)) s."
