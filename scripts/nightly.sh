#!/usr/bin/env bash
# make check-nightly: checks that take too long for each change. Run make check first.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
go=$(scripts/go.sh)
export CGO_ENABLED=0

# Node of another source than Debian brings npm along.
node() { { command -v node && command -v npm; } >/dev/null || scripts/packages.sh nodejs npm; }
step 'install what the tests need'        node
# 667 MB with what it depends on, which the checks of each change do without.
step 'install az'                         scripts/packages.sh azure-cli

# First the long variants, with nothing else running. Then all of test/e2e against a server built with the race
# detector, whose log must report no race.
echo 'go test, the long variants; then with the race detector in the server'
{
  PENSTOCK_NIGHTLY=1 PENSTOCK_HANDOVERS=20 PENSTOCK_SWITCHES=100 PENSTOCK_RESTARTS=100 PENSTOCK_GAPS=10 \
    "$go" test -count=1 -timeout 60m -p 1 -json ./test/e2e/azure ./test/e2e/images ./test/e2e/operate ./test/e2e/restarts
  PENSTOCK_NIGHTLY=1 "$go" test -count=1 -timeout 30m -json -run '^TestConcurrentPatchesOfEveryKind$' ./internal/arm
  PENSTOCK_RACE=1 "$go" test -count=1 -timeout 60m -p 2 -json ./test/e2e/...
} | "$go" run ./test/report
step 'fuzz, a minute each'                scripts/fuzz.sh "${FUZZTIME:-1m}"
echo "All good after $((SECONDS - began)) s."
