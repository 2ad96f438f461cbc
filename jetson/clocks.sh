#!/bin/bash
# Power mode and clocks of a Jetson: stored, set for as long as a command runs, and put back as they were.
#
#   clocks.sh status                       what is set now, and what a crash left to be restored
#   clocks.sh run [-m MODE] -- COMMAND…    set, run the command, restore; also after Ctrl-C or a failure
#   clocks.sh set [-m MODE]                set and leave it so
#   clocks.sh restore                      put back what `set`, or a `run` that was killed, has stored
#
# Without -m the mode stays and only the clocks are locked to its highest. What is stored lies in a file until it is
# restored: after kill -9 or a crash the next start finds it. jetson_clocks does not outlive a restart of the board,
# nvpmodel does, so after a restart only the mode is put back.
#
# Exit codes: the command's own; 2 usage; 3 the tools are missing, refuse, or another run holds the clocks.
set -u

STATE="${SRDEPLOY_CLOCKS_STATE:-/var/lib/srdeploy-clocks}"
BOOT_ID="${SRDEPLOY_BOOT_ID_FILE:-/proc/sys/kernel/random/boot_id}"
MODEL="${SRDEPLOY_MODEL_FILE:-/proc/device-tree/model}"

say() { printf 'clocks: %s\n' "$*" >&2; }

fail() {
    say "error: $1"
    [ $# -lt 2 ] || say "next:  $2"
    exit 3
}

usage() {
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

need_tools() {
    for tool in nvpmodel jetson_clocks; do
        command -v "$tool" >/dev/null 2>&1 || fail "there is no $tool here" "run this on the Jetson, not in a container"
    done
    mkdir -p "$STATE" 2>/dev/null || fail "cannot write $STATE" "sudo $0 …"
    [ -w "$STATE" ] || fail "cannot write $STATE" "sudo $0 …"
}

# The number on the line after "NV Power Mode: NAME"; warnings may stand before it.
mode_now() { nvpmodel -q 2>/dev/null | sed -n '/^NV Power Mode/{n;s/^[[:space:]]*\([0-9][0-9]*\)[[:space:]]*$/\1/p;}' | head -n 1; }

mode_name() { nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p' | head -n 1; }

warn_slow() {
    # nvpmodel_t194_p3668.conf: mode 5 is what a Xavier NX boots in.
    if grep -qs 'Xavier NX' "$MODEL" && [ "$(mode_now)" = 5 ]; then
        say "warning: mode 5 ($(mode_name)) runs the GPU at 510 of 1109 MHz"
        say "next:    $0 run -m 8 -- COMMAND   (20 W, needs a good supply; -m 2 for 15 W)"
    fi
}

# A mode that asks whether to restart the board must not wait for an answer here: it would change the board's CPUs
# under a running command. The answer is no, and then the mode has not changed, which is found below.
set_mode() {
    [ "$(mode_now)" != "$1" ] || return 0
    say "power mode $(mode_now) -> $1"
    printf 'no\n' | nvpmodel -m "$1" >/dev/null 2>&1
    [ "$(mode_now)" = "$1" ] || { say "error: mode $1 could not be set (unknown here, or it needs a restart)"; return 1; }
}

pending() { [ -f "$STATE/mode" ]; }

restore() {
    pending || return 0
    code=0
    # In the reverse order of setting: the stored clocks belong to the stored mode.
    set_mode "$(cat "$STATE/mode")" || code=1
    if [ -f "$STATE/clocks" ] && [ "$(cat "$STATE/boot")" = "$(cat "$BOOT_ID")" ]; then
        jetson_clocks --restore "$STATE/clocks" >/dev/null || { say "error: jetson_clocks --restore failed"; code=1; }
    fi
    if [ "$code" = 0 ]; then
        rm -f "$STATE/clocks" "$STATE/boot" "$STATE/mode"
        say "restored: mode $(mode_now) ($(mode_name))"
    else
        say "next:  $0 restore   (what is to be restored stays in $STATE)"
    fi
    return "$code"
}

# Store first and whole, then set: a crash between the two restores what is still so.
store() {
    if pending; then
        say "a run before this one ended without restoring; doing it now"
        restore || exit 3
    fi
    cat "$BOOT_ID" >"$STATE/boot" || fail "cannot write $STATE/boot"
    rm -f "$STATE/clocks"
    jetson_clocks --store "$STATE/clocks" >/dev/null || fail "jetson_clocks --store failed" "sudo $0 …"
    local before
    before=$(mode_now)
    [ -n "$before" ] || fail "nvpmodel -q names no mode" "sudo nvpmodel -q"
    if ! { printf "%s\n" "$before" >"$STATE/mode.new" && sync "$STATE/mode.new" && mv "$STATE/mode.new" "$STATE/mode"; }; then
        fail "cannot write $STATE/mode"
    fi
}

apply() {
    [ -z "$1" ] || set_mode "$1" || return 1
    jetson_clocks >/dev/null || { say "error: jetson_clocks failed"; return 1; }
    say "set: mode $(mode_now) ($(mode_name)), clocks locked to its highest"
}

# One run at a time: the kernel's lock ends with this process, however it ends. The command does not inherit it.
hold() {
    exec 9>"$STATE/lock" || fail "cannot write $STATE/lock"
    flock -n 9 || fail "another clocks.sh holds the clocks" "wait until it has ended"
}

run() {
    command_pid=
    # The handlers only note the signal and pass it on; what is to be done is done once, below.
    caught=0
    trap 'caught=130; [ -z "$command_pid" ] || kill -INT -- "-$command_pid" 2>/dev/null' INT
    trap 'caught=143; [ -z "$command_pid" ] || kill -TERM -- "-$command_pid" 2>/dev/null' TERM HUP
    trap 'restore || exit 3' EXIT
    apply "$1" || exit 3
    shift
    # In the background, because bash handles a signal only between commands or in `wait`; with job control, because
    # without it a background command ignores Ctrl-C. It gets a process group of its own and cannot read the terminal.
    set -m
    "$@" 9>&- </dev/null &
    command_pid=$!
    set +m
    [ "$caught" = 0 ] || kill -TERM -- "-$command_pid" 2>/dev/null
    # A caught signal ends `wait` before the command has ended: wait again until it has.
    while :; do
        wait "$command_pid"
        code=$?
        kill -0 "$command_pid" 2>/dev/null || break
    done
    [ "$caught" = 0 ] || code=$caught
    exit "$code"
}

[ $# -gt 0 ] || usage
action=$1
shift
mode=
if [ "${1:-}" = -m ]; then
    case "${2:-}" in
    '' | *[!0-9]*) usage ;;
    esac
    mode=$2
    shift 2
fi
case "$action" in
status)
    need_tools
    printf 'mode: %s (%s)\n' "$(mode_now)" "$(mode_name)"
    pending && printf 'to be restored: mode %s\n' "$(cat "$STATE/mode")"
    warn_slow
    exit 0
    ;;
run)
    { [ "${1:-}" = -- ] && [ $# -gt 1 ]; } || usage
    shift
    need_tools
    hold
    store
    [ -n "$mode" ] || warn_slow
    run "$mode" "$@"
    ;;
set)
    [ $# = 0 ] || usage
    need_tools
    hold
    store
    [ -n "$mode" ] || warn_slow
    apply "$mode" || {
        restore
        exit 3
    }
    ;;
restore)
    { [ $# = 0 ] && [ -z "$mode" ]; } || usage
    need_tools
    hold
    pending || {
        say "nothing to restore"
        exit 0
    }
    restore || exit 3
    ;;
*) usage ;;
esac
