#!/usr/bin/env bash
# The Linux guest: it boots and verifies what it wrote; and its load notices a stale value and a
# lost one, tried with the guest's own server and load outside a VM.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/guest-linux"
kernel=$root/build/guests/vmlinuz
cpio=$root/build/guests/redis.cpio
dir=$(mktemp -d /dev/shm/towline-guest.XXXXXX)
pids=()

cleanup() {
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*"
    tail -n 20 "$dir"/*.log
    exit 1
}

expect() { # LOG REGEX SECONDS
    for _ in $(seq "$(($3 * 10))"); do
        grep -Eq "$2" "$dir/$1" && return 0
        sleep 0.1
    done
    fail "nothing in $1 matches: $2"
}

unpacked() { # PROGRAM ARGUMENTS...: a program of the initramfs with the libraries of the initramfs
    local root=$dir/root program=$1
    shift
    exec "$root/lib64/ld-linux-x86-64.so.2" --argv0 "$program" \
        --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" \
        "$root/usr/bin/$program" "$@"
}

client() {
    (unpacked redis-cli -s "$dir/socket" "$@")
}

mkdir "$dir/root"
(cd "$dir/root" && cpio --quiet -i --no-absolute-filenames <"$cpio")

(unpacked redis-server --port 0 --unixsocket "$dir/socket" --save '' --appendonly no \
    --logfile "$dir/server.log" --dir "$dir") >"$dir/redis.log" 2>&1 &
pids+=($!)
"$dir/root/bin/load" workload=redis "socket=$dir/socket" keys=64 rate=2000 verify_every_s=1 \
    >"$dir/load.log" 2>&1 &
pids+=($!)
expect load.log '^verify pass=1 keys=64 bad=0 ' 20
client GET key:00000007 | head -c 256 >"$dir/old"
expect load.log '^verify pass=2 keys=64 bad=0 ' 20
client -x SET key:00000007 <"$dir/old" >/dev/null
expect load.log '^WRONG key=7 expected=[0-9]+ generation found=' 20
client DEL key:00000009 >/dev/null
expect load.log '^WRONG key=9 expected=[0-9]+ missing ' 20
expect load.log '^load .* errors=2 ' 20
kill "${pids[@]}"
wait 2>/dev/null
pids=()

: >"$dir/serial.log"
timeout 120 qemu-system-x86_64 -M q35 -accel tcg -m 256 -nodefaults -display none \
    -serial "file:$dir/serial.log" -kernel "$kernel" -initrd "$cpio" \
    -append "console=ttyS0 quiet panic=-1 keys=2000 verify_every_s=1" >"$dir/qemu.log" 2>&1 </dev/null &
pids+=($!)
start=$SECONDS
expect serial.log '^READY workload=redis keys=2000 ' 60
echo "ready after $((SECONDS - start)) s"
expect serial.log '^verify pass=2 keys=2000 bad=0 ' 40
grep -E '^verify pass=2 keys' "$dir/serial.log" | grep -Eq 'acknowledged=([0-9]+) verified=\1 ' ||
    fail "a pass without an error left writes unverified"
echo "the guest verifies its writes; its load notices stale and lost values"
