#!/bin/sh
# Switches guards of engine/src/guard.rs off, one at a time, and runs the tests of the libraries until one fails.
# Usage: tests/guards.sh [NAME,NAME...]; without names, all of them. Ends with 1 if a guard is not missed.
set -eu
cd "$(dirname "$0")/.."
names=${1:-$(sed -n 's/^    \([A-Z][A-Za-z]*\) "I[0-9]*" .*/\1/p' engine/src/guard.rs | paste -sd,)}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
tests() {
    cargo nextest run --package lockstep-engine --package lockstep-wire --package lockstep-agent --package lockstep-hub \
        --features lockstep-engine/mutants --status-level fail --final-status-level none "$@"
}
tests --no-run
missed=0
for name in $(echo "$names" | tr , ' '); do
    if LOCKSTEP_GUARDS_OFF=$name tests >"$log" 2>&1; then
        echo "$name: no test fails"
        missed=1
    elif grep -q '^ *[A-Z-]* \[' "$log"; then
        sed -n "s/^ *[A-Z-]* \[.*) *lockstep-\([^ ]*\) \(.*\)/$name: \1 \2/p" "$log" | sort -u | head -n 1
    else
        cat "$log"
        exit 2
    fi
done
exit $missed
