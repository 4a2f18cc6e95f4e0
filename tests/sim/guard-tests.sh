#!/bin/sh
# guard-tests.sh [GUARD...]: runs the tests of the libraries without each guard of the invariants in turn, and says which
# of them notice. The histories of `make sim-guards` are the other half.
set -u
cargo=${CARGO:-cargo}
packages="-p lockstep-engine -p lockstep-wire -p lockstep-cluster -p lockstep-agent -p lockstep-hub"
test_all() {
  # shellcheck disable=SC2086
  $cargo nextest run $packages --features lockstep-engine/mutants --status-level fail --final-status-level fail "$@" 2>&1
}
test_all >/dev/null || { echo "the tests fail with all guards on: see make test" >&2; exit 1; }
guards=${*:-$(sed -n 's/^    \([A-Z][A-Za-z]*\) "I[0-9]*" ".*/\1/p' engine/src/guard.rs)}
missed=0
for guard in $guards; do
  failed=$(LOCKSTEP_GUARDS_OFF=$guard test_all --no-fail-fast | sed -n 's/^ *[A-Z]* \[.*\] .* \([a-z_0-9:]*\)$/\1/p' | sort -u)
  if [ -n "$failed" ]; then
    echo "$guard: $(echo "$failed" | wc -l) tests, $(echo "$failed" | head -n 1)"
  else
    echo "$guard: NO TEST"
    missed=$((missed + 1))
  fi
done
echo "$missed guards that no test misses"
