# Sourced by the other scripts: how a step is told and timed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
began=$SECONDS

# step TEXT COMMAND...: says what it does, does it, and says how long it took. What the command prints goes to a log
# that is shown only when it fails.
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
