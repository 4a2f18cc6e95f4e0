#!/bin/bash
# Runs every test on control planes started for this run: run-tests.sh path/to/testbed
# Nothing is printed after the summary of the test runner, unless something is wrong.
set -euo pipefail
testbed=$1
allow=tests/allowed-requests.txt
if command -v cargo-nextest >/dev/null; then
    runner=(cargo nextest run --workspace)
else
    echo "cargo-nextest is not installed: running the slower cargo test instead" >&2
    runner=(cargo test --workspace --quiet)
fi
# The audit log of the run shows whether lockstep asked for something that older servers lack.
exec "$testbed" run --audit -- bash -c '"${@:3}" && "$1" check-requests --allow "$2"' _ "$testbed" "$allow" "${runner[@]}"
