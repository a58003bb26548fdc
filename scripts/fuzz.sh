#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz test below internal/ for TIME. Each package is compiled for fuzzing once.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"
time=$1
go=$(scripts/go.sh)
export CGO_ENABLED=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
found=$("$go" env GOCACHE)/fuzz

# one DIR NAME: runs one fuzz test. It tries again if the test only ran out of time while stopping a worker, which Go
# reports as a failure.
one() {
  local out
  for _ in 1 2; do
    out=$(cd "$1" && "$work/fuzz" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 1x \
      -test.timeout 0 -test.fuzzcachedir "$found/penstock/$1" 2>&1) && return 0
    [[ $out == *'context deadline exceeded'* && $out != *'Failing input'* ]] || break
  done
  echo "$out"
  return 1
}

for dir in $({ git ls-files 'internal/*_test.go' && git ls-files --others --exclude-standard 'internal/*_test.go'; } | xargs dirname | sort -u); do
  names=$(cat "$dir"/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p')
  [ -n "$names" ] || continue
  "$go" test -c -fuzz . -o "$work/fuzz" "./$dir"
  for name in $names; do
    echo "$dir $name"
    one "$dir" "$name"
  done
done
