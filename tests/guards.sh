#!/bin/bash
# Switches guards of engine/src/guard.rs off, one at a time, and runs the tests of the libraries until one fails.
# Usage: tests/guards.sh [NAME,NAME...]; without names, all of them. Ends with 1 if a guard is not missed.
. "$(dirname "${BASH_SOURCE[0]}")/report-errors.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
names=${1:-$(sed -n 's/^    \([A-Z][A-Za-z]*\) "I[0-9]*" .*/\1/p' engine/src/guard.rs | paste -sd,)}
log=$(mktemp)
FAILURE_LOG=$log
remove_log() { rm -f "$log"; }
ON_EXIT=remove_log
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
        sed -n "s/^ *[A-Z-]* \[.*) *lockstep-\([^ ]*\) \(.*\)/$name: \1 \2/p" "$log" | sort -u | sed -n 1p
    else
        FAILURE_LOG_LINES=1000
        die "the tests of $name failed to run"
    fi
done
[ "$missed" -eq 0 ] || FAILURE_LOG='' die "some guards are not missed"
