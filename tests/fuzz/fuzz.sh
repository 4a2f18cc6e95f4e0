#!/bin/bash
# Runs one target under libFuzzer, from the corpus in the tree; `make fuzz TARGET=watch_lines SECONDS=60`.
. "$(dirname "${BASH_SOURCE[0]}")/../report-errors.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=tests/fuzz/libfuzzer
seconds=${1:?seconds} target=${2:-}

if [[ -z $target || ! -f $here/fuzz_targets/$target.rs ]]; then
  die "TARGET is one of: $(cd $here/fuzz_targets && echo *.rs | sed 's/\.rs//g')"
fi
if ! command -v cargo-fuzz >/dev/null; then
  die "cargo-fuzz is missing: cargo install cargo-fuzz"
fi
if ! command -v c++ >/dev/null; then
  die "a C++ compiler is missing, which builds libFuzzer: apt-get install g++"
fi

# The versions that lockstep itself is built with.
cp Cargo.lock $here/Cargo.lock
# What is found on the way stays outside of the tree.
found=target/fuzz-corpus/$target
mkdir -p "$found"
# The instrumentation is not part of a stable compiler. Without a sanitizer: there is no unsafe code of ours, and what is
# looked for are broken laws, overflows, time and memory.
export RUSTC_BOOTSTRAP=1
exec cargo fuzz run --fuzz-dir $here --target-dir target/fuzz --sanitizer none "$target" \
  "$found" "tests/fuzz/corpus/$target" -- \
  -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1
