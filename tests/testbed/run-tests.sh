#!/bin/bash
# Runs every test on control planes started for this run: run-tests.sh path/to/testbed
# Nothing is printed after the summary of the test runner.
set -euo pipefail
if command -v cargo-nextest >/dev/null; then
    exec "$1" run -- cargo nextest run --workspace
fi
echo "cargo-nextest is not installed: running the slower cargo test instead" >&2
exec "$1" run -- cargo test --workspace --quiet
