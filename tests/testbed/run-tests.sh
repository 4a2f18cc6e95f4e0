#!/bin/bash
# Runs every test on control planes started for this run: run-tests.sh path/to/testbed
# A test that fails does not keep the others from running. Nothing is printed after the summary of the test runner,
# unless something is wrong.
. "$(dirname "${BASH_SOURCE[0]}")/../report-errors.sh"
testbed=${1:?usage: run-tests.sh path/to/testbed}
allow=tests/allowed-requests.txt
if command -v cargo-nextest >/dev/null; then
    runner=(cargo nextest run --workspace --no-fail-fast)
else
    echo "cargo-nextest is not installed: running the slower cargo test instead" >&2
    runner=(cargo test --workspace --no-fail-fast --quiet)
fi
# The audit log of the run shows whether lockstep asked for something that older servers lack.
exec "$testbed" run --audit -- bash -c '"${@:3}" && "$1" check-requests --allow "$2"' _ "$testbed" "$allow" "${runner[@]}"
