#!/bin/bash
# Says what `make demo` or `make test` is going to do and roughly how long it takes, from what is there already.
#
#   plan.sh demo|test
#
# The figures are seconds of CPU time of a slow machine with two cores, rounded up (docs/dev/lab/2026-12.md). Compilers
# and tests keep several cores busy; the build of Kubernetes has long stretches with one.
. "$(dirname "${BASH_SOURCE[0]}")/../report-errors.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

cores=$(nproc)
total=0

# minutes SECONDS-OF-A-CORE [CORES]: as words; at most four cores count.
minutes() {
    local cpu=$1 used=${2:-$cores} seconds
    [ "$used" -le 4 ] || used=4
    seconds=$((cpu / used))
    total=$((total + seconds))
    if [ "$seconds" -lt 90 ]; then took="$seconds s"; else took="$(((seconds + 30) / 60)) min"; fi
}
row() { printf '  %-12s %-60s %s\n' "$1" "$2" "$3"; }

# built PACKAGE...: whether cargo has compiled them here before, whatever has changed since.
built() {
    local package
    for package in "$@"; do compgen -G "target/debug/.fingerprint/$package-*" >/dev/null || return 1; done
}

kubernetes() {
    local where took
    where=$("$here/build-kubernetes.sh" --plan)
    case $where in
    assets) row Kubernetes "in KUBEBUILDER_ASSETS" "" ;;
    cache) row Kubernetes "in the cache" "" ;;
    download) row Kubernetes "is downloaded from LOCKSTEP_TESTBED_URL, once" "" ;;
    build) minutes 600 2 && row Kubernetes "is built from Debian's source package, once" "$took" ;;
    esac
}

# compile WHAT CPU-SECONDS PACKAGE...
compile() {
    local what=$1 cpu=$2 took
    shift 2
    if built "$@"; then
        row compile "$what: built before, so only what has changed" ""
    else
        minutes "$cpu" && row compile "$what: from nothing" "$took"
    fi
}

case ${1:-} in
demo)
    echo "make demo, on $cores cores:"
    kubernetes
    compile "lockstep and the test bed" 450 lockstep-hub lockstep-tests
    minutes 30 1 && row demo "three control planes (1 GB of memory), five acts" "$took"
    ;;
test)
    echo "make test, on $cores cores:"
    kubernetes
    compile "clippy, then everything with its tests" 900 lockstep-hub lockstep-sim
    minutes 1040 && row tests "on three control planes (1 GB of memory), and a demo twice" "$took"
    ;;
*) die "usage: plan.sh demo|test" ;;
esac
row "" "" "about $(((total + 59) / 60)) min in all"
