#!/usr/bin/env bash
# The small guest in plain QEMU: it gets ready, counts, notices a stale page, and stops when told.
#   sparse_test.sh ELF
set -euo pipefail

elf=$1
dir=$(mktemp -d /dev/shm/towline-guest.XXXXXX)
qemu=

cleanup() {
    [[ -z $qemu ]] || halt
    rm -rf "$dir"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*"
    cat "$dir/serial" "$dir/qemu.log" 2>/dev/null
    exit 1
}

boot() { # MIB COMMAND-LINE
    : >"$dir/serial"
    rm -f "$dir/ram"
    timeout 60 qemu-system-x86_64 -M q35,memory-backend=ram -accel tcg -m "$1" -nodefaults \
        -object "memory-backend-file,id=ram,size=${1}M,mem-path=$dir/ram,share=on" \
        -display none -serial "file:$dir/serial" -kernel "$elf" -append "$2" \
        >"$dir/qemu.log" 2>&1 </dev/null &
    qemu=$!
}

halt() {
    kill "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
    qemu=
}

expect() { # REGEX
    for _ in $(seq 400); do
        grep -Eq "$1" "$dir/serial" && return 0
        sleep 0.05
    done
    fail "nothing on the serial port matches: $1"
}

poke() { # ADDRESS BYTES
    printf %b "$2" | dd of="$dir/ram" bs=1 seek="$(($1))" conv=notrunc status=none
}

for mode in sparse random dense; do
    boot 8 "mode=$mode pages=300 rate=30000 fill=1"
    expect "^READY mode=$mode pages=300 "
    expect '^t=[0-9]+ it=[1-9][0-9]* writes=[1-9][0-9]* bad=0 '
    # The generation of page 0 (and in mode dense a word of it) set back to 0.
    poke 0x301004 '\x00\x00\x00\x00'
    expect '^BAD page=0 '
    poke $((0x300000 + 64)) '\x01'
    expect '^STOP .* bad=1 '
    halt
done

boot 4 "mode=idle"
expect '^t=[0-9]+ it=0 writes=0 bad=0 '
halt
boot 4 "pages=100000"
expect '^ERROR pages: expected at most [0-9]+, given 100000'
echo "all modes count, notice a stale page and stop"
