# Sourced by every script of the repository before it does anything: no script ends without a message.
#
#   . "$(dirname "${BASH_SOURCE[0]}")/report-errors.sh"
#
# A command that fails ends the script, also in a function, a subshell or a command substitution. Standard error then
# says which command in which line failed with which status, and how the script got there. A script sets
#
#   FAILURE_LOG   to the log of what it is doing: a failure shows its end
#   ON_EXIT       to the function that cleans up, and runs however the script ends, but for SIGKILL
#
# and ends by `die MESSAGE` where it finds something wrong itself. tests/tests/repository/scripts.rs checks that every
# script sources this file, and what it prints.

set -Eeuo pipefail
shopt -s inherit_errexit

FAILURE_LOG=
FAILURE_LOG_LINES=20
ON_EXIT=
REPORTED=

die() {
    trap - ERR
    printf 'error: %s\n' "$*" >&2
    REPORTED=1
    show_failure_log
    exit 1
}

show_failure_log() {
    if [ -n "$FAILURE_LOG" ] && [ -s "$FAILURE_LOG" ]; then
        printf 'the end of %s:\n' "$FAILURE_LOG"
        tail -n "$FAILURE_LOG_LINES" "$FAILURE_LOG"
    fi >&2
}

# report_failure STATUS COMMAND: the frames below this function are where the script was.
report_failure() {
    local status=$1 command=$2 frame file line text
    trap - ERR
    REPORTED=1
    for ((frame = 1; frame < ${#BASH_SOURCE[@]}; frame++)); do
        file=${BASH_SOURCE[frame]} line=${BASH_LINENO[frame - 1]}
        if [ "$frame" -eq 1 ]; then
            printf 'error: %s line %s: status %s from: %s\n' "$file" "$line" "$status" "${command%%$'\n'*}"
        else
            printf '  called in %s line %s\n' "$file" "$line"
        fi
        # Bash names one command of a pipeline or a list; the line shows all of it.
        text=$(sed -n "${line}{s/^[[:space:]]*//;p}" "$file" 2>/dev/null || true)
        [ -z "$text" ] || printf '    %s\n' "$text"
    done >&2
    # A subshell reports, and then the script that it is part of: the log follows once.
    [ "$BASH_SUBSHELL" -gt 0 ] || show_failure_log
}

interrupted() { # SIGNAL STATUS
    echo "interrupted by $1" >&2
    REPORTED=1
    exit "$2"
}

finish() {
    local status=$?
    trap - ERR EXIT INT TERM HUP
    set +e
    [ -z "$ON_EXIT" ] || "$ON_EXIT"
    # `exit 3`, an unset variable, or a list like `test && command` as the last line: none of them runs the ERR trap.
    if [ "$status" -ne 0 ] && [ -z "$REPORTED" ]; then
        printf 'error: %s ended with status %s\n' "$0" "$status"
        show_failure_log
    fi >&2
    exit "$status"
}

trap 'report_failure "$?" "$BASH_COMMAND"' ERR
trap finish EXIT
trap 'interrupted SIGINT 130' INT
trap 'interrupted SIGTERM 143' TERM
trap 'interrupted SIGHUP 129' HUP
