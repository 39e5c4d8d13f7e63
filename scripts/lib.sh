# Shared by the scripts beside it; source it after `set -euo pipefail`.
# shellcheck shell=bash

TOWLINE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TOWLINE_ROOT
# What the scripts download is kept here, bounded by what the current version of them needs.
export TOWLINE_CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/towline

# Progress goes to standard error, so that a script's standard output is its answer.
say() {
    printf '%s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Milliseconds of a clock that no one sets.
now_ms() {
    local up rest
    read -r up rest </proc/uptime
    printf '%s\n' "$((${up/./} * 10))"
}

# Runs a command with its output in a file; shows the end of the file if it fails.
logged() { # LOG COMMAND...
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        say "failed: $* (all of it in $log)"
        return 1
    fi
}

# Configures (once) and builds a preset into build/PRESET.
build_preset() { # PRESET [CMAKE-OPTION...] [-- TARGET...]
    local preset=$1 options=() targets=()
    shift
    while (($# > 0)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    (($# > 0)) && shift
    targets=("$@")
    mkdir -p "$TOWLINE_ROOT/build"
    local log=$TOWLINE_ROOT/build/$preset.log
    (cd "$TOWLINE_ROOT" && logged "$log" cmake --preset "$preset" "${options[@]}")
    logged "$log" ninja -C "$TOWLINE_ROOT/build/$preset" -j "$(nproc)" "${targets[@]}"
}
