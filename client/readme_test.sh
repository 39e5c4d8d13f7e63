#!/usr/bin/env bash
# The program of client/README.md, compiled as a reader would, in C and in C++, with pkg-config and
# with CMake; the Python examples; the man page. Each is run against a real agent.
#   readme_test.sh AGENT BUILD_FOLDER CC
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
agent=$1 build=$2 cc=$3
work=$(mktemp -d)
agent_pid=
finish() {
    if [ -n "$agent_pid" ]; then
        kill "$agent_pid" 2>/dev/null || true
        wait "$agent_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "client_readme_test: $*" >&2
    exit 1
}

cat >"$work/agent.yaml" <<END
name: here
listen: tcp://127.0.0.1:0
insecure: true
fabric: tcp
fabric_listen: 127.0.0.1:0
plugin: /bin/sh
state_dir: $work/state
run_dir: $work/run
tracking_socket: $work/agent.sock
instrumented_socket: $work/instrumented.sock
END
"$agent" --config "$work/agent.yaml" 2>"$work/agent.log" &
agent_pid=$!
for ((i = 0; i < 600; i++)); do
    if [ -S "$work/agent.sock" ]; then break; fi
    sleep 0.1
done
export TOWLINE_INSTRUMENTED=$work/instrumented.sock
export TOWLINE_SOCKET=$work/agent.sock LD_LIBRARY_PATH=$build/lib PKG_CONFIG_PATH=$build/lib/pkgconfig

sed -n '/^```c$/,/^```$/p' "$here/README.md" | sed '1d;$d' >"$work/hello.c"
cp "$work/hello.c" "$work/hello.cpp"
# shellcheck disable=SC2046 # flags are words
"$cc" -Wall -Wextra -Werror -o "$work/hello" "$work/hello.c" $(pkg-config --cflags --libs towline)
# shellcheck disable=SC2046
g++ -Wall -Wextra -Werror -o "$work/hellopp" "$work/hello.cpp" $(pkg-config --cflags --libs towline)

mkdir "$work/cmake"
cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(hello LANGUAGES C)
find_package(towline REQUIRED)
add_executable(hello ../hello.c)
target_link_libraries(hello towline::towline)
END
cmake -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_PREFIX_PATH="$build" >"$work/cmake.log" 2>&1 &&
    cmake --build "$work/cmake/build" >>"$work/cmake.log" 2>&1 || fail "$(cat "$work/cmake.log")"

for hello in hello hellopp cmake/build/hello; do
    "$work/$hello" >"$work/said" 2>"$work/errors" || fail "$hello: $(cat "$work/errors" "$work/agent.log")"
    [ "$(grep -c '^page at offset' "$work/said")" = 2 ] || fail "$hello: $(cat "$work/said")"
done

python3=$(command -v python3) || fail "no python3"
TOWLINE_LIBRARY=$build/lib/libtowline.so "$python3" "$here/example.py" >"$work/said" ||
    fail "example.py: $(cat "$work/said")"
[ "$(wc -l <"$work/said")" = 2 ] || fail "example.py: $(cat "$work/said")"

# The same of accessed lines, on a program of towline-cc: it loads from every eighth of 65536 lines.
cat >"$work/user.c" <<END
#include <stdlib.h>
static volatile char memory[4 << 20];
int main(void)
{
    for (;;)
        for (size_t i = 0; i < sizeof memory; i += 512)
            memory[4096] += memory[i];
}
END
TOWLINE_CC=$cc "$build/bin/towline-cc" -O2 -o "$work/user" "$work/user.c"
TOWLINE_LIBRARY=$build/lib/libtowline.so "$python3" "$here/example_accessed.py" "$work/user" \
    >"$work/said" || fail "example_accessed.py: $(cat "$work/said")"
[ "$(wc -l <"$work/said")" = 3 ] || fail "example_accessed.py: $(cat "$work/said")"
# Loaded lines beside the one or few that are written; an eighth of its pages, not all of them.
awk '$1 > 64 || $4 < 4096 || $4 > 9000 || $9 < 12 || $9 > 14 { bad = 1 } END { exit bad }' \
    "$work/said" || fail "example_accessed.py: $(cat "$work/said")"

# Every function of the header is in the man page, and the library has no other.
for name in $(grep -o 'towline_[a-z_]*(' "$here/towline.h" | tr -d '(' | sort -u); do
    grep -q "$name" "$here/man/towline.3" || fail "man/towline.3 does not have $name"
done
foreign=$(nm -D --defined-only "$build/lib/libtowline.so" | awk '{print $3}' | grep -v '^towline_' || true)
[ -z "$foreign" ] || fail "the library shows $foreign"
