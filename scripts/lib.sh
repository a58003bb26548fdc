# Sourced by the other scripts: prints and times steps.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
began=$SECONDS

# step TEXT COMMAND...: prints TEXT, runs COMMAND and prints how long it took. The command's output is shown only if it
# fails.
step() {
  local text=$1 from=$SECONDS out
  shift
  out=$(mktemp)
  printf '%-58s' "$text"
  if "$@" >"$out" 2>&1; then
    printf '%4ds\n' $((SECONDS - from))
    rm -f "$out"
  else
    local status=$?
    printf 'failed\n'
    cat "$out"
    rm -f "$out"
    return $status
  fi
}
