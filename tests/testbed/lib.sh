# Shared by the scripts of the test bed: progress, child processes, apt. Sourced, never run.
# Everything a person reads goes to standard error; standard output carries results only.
. "$(dirname "${BASH_SOURCE[0]}")/../report-errors.sh"

HEARTBEAT_SECONDS=5 # a silent terminal looks like a hung one; people give up after about ten
STARTED_AT=$SECONDS
CHILD=

say() { printf '%4ss  %s\n' "$((SECONDS - STARTED_AT))" "$*" >&2; }

# Background jobs of a script ignore SIGINT, so each step runs in a session of its own and is
# ended by its process group here.
stop_child() {
    if [ -n "$CHILD" ]; then
        kill -TERM -- "-$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
        CHILD=
    fi
}
ON_EXIT=stop_child

# What a step runs under: it gets SIGTERM also when this script dies by SIGKILL, and takes its whole group along.
GUARD='trap "trap - TERM; kill -TERM -- -\$\$" TERM; "$@" & wait "$!"'

# step LOGFILE DESCRIPTION COMMAND...: runs the command at low priority with its output in the
# log file, tells that it is alive while it runs, and shows the end of the log when it fails.
step() {
    local log=$1 what=$2 began=$SECONDS told=$SECONDS status=0
    shift 2
    say "$what"
    setsid setpriv --pdeathsig TERM -- nice -n 10 "$BASH" -c "$GUARD" step "$@" >>"$log" 2>&1 </dev/null &
    CHILD=$!
    while kill -0 "$CHILD" 2>/dev/null; do
        sleep 0.5
        if [ $((SECONDS - told)) -ge "$HEARTBEAT_SECONDS" ]; then
            told=$SECONDS
            say "$what: still running, $((SECONDS - began)) s so far"
        fi
    done
    wait "$CHILD" || status=$?
    CHILD=
    if [ "$status" -ne 0 ]; then
        FAILURE_LOG=$log
        die "$what: failed with status $status; the whole log: $log"
    fi
}

# as_root COMMAND...: directly, or through sudo where it works without a password or a terminal is there.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=DEBIAN_FRONTEND "$@"
    else
        die "needs root, and sudo is not there; run as root: $*"
    fi
}
