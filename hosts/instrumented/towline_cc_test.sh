#!/bin/sh
# The compiler wrapper as builds use it.
#   towline_cc_test.sh BUILD_FOLDER SUBJECTS_FOLDER
set -eu
build=$1
subjects=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export TOWLINE_INSTRUMENTED=off

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

cat >hello.c <<'C'
#include <stdio.h>
int main(void) { puts("hello"); return 0; }
C
cat >empty.c <<'C'
int nothing(int x) { return x + 1; }
C

try() { # COMPILER
    export TOWLINE_CC="$1"
    cc=$build/bin/towline-cc
    "$cc" --version | grep -q '^towline-cc [0-9]' || fail "$1: --version"
    "$cc" -print | grep -q '^compile: -fsanitize=thread' || fail "$1: -print"
    "$cc" -dumpmachine | grep -q linux || fail "$1: a question to the compiler"
    # In one step, in two, and as a shared object.
    "$cc" hello.c -o one && [ "$(./one)" = hello ] || fail "$1: one step"
    "$cc" -c hello.c -o hello.o && "$cc" hello.o -o two && [ "$(./two)" = hello ] || fail "$1: two steps"
    ! ldd ./one | grep -q libtsan || fail "$1: linked with the compiler's own runtime"
    "$cc" -fPIC -shared empty.c -o libempty.so || fail "$1: shared object"
    ! nm -D --defined-only libempty.so | grep -q __tsan || fail "$1: a runtime in a shared object"
    # Objects without instrumentation are named, also inside archives.
    "$1" -c empty.c -o plain.o
    "$cc" hello.o plain.o -o warned 2>warnings || fail "$1: linking a plain object"
    grep -q 'plain.o: not instrumented' warnings || fail "$1: plain.o was not named"
    ! grep -q 'hello.o' warnings || fail "$1: hello.o was named"
    rm -f libplain.a && ar rc libplain.a plain.o hello.o
    "$cc" hello.o libplain.a -o warned 2>warnings || fail "$1: linking an archive"
    grep -q 'libplain.a:plain.o: not instrumented' warnings || fail "$1: the archive's plain.o"
    ! TOWLINE_STRICT=1 "$cc" hello.o plain.o -o strict 2>/dev/null || fail "$1: TOWLINE_STRICT"
    ! "$cc" -static hello.c -o static 2>/dev/null || fail "$1: -static"
    # The gap that gcc can only warn of.
    if ! "$1" --version | grep -q clang; then
        "$cc" -c -O2 -I"$subjects" "$subjects/stores.c" -o stores.o 2>warnings
        grep -q 'aggregate-return' warnings || fail "$1: a returned structure without a warning"
    fi
    # With pkg-config's flags, without the wrapper.
    if command -v pkg-config >/dev/null; then
        flags=$(PKG_CONFIG_PATH=$build/lib/pkgconfig pkg-config --cflags towline-instrumented)
        libs=$(PKG_CONFIG_PATH=$build/lib/pkgconfig pkg-config --libs towline-instrumented)
        # shellcheck disable=SC2086
        "$1" $flags -c hello.c -o flags.o && "$1" flags.o -o flags $libs && [ "$(./flags)" = hello ] ||
            fail "$1: pkg-config"
    fi
}

# A build system's own probes.
try_cmake() { # COMPILER
    command -v cmake >/dev/null || return 0
    cat >CMakeLists.txt <<'C'
cmake_minimum_required(VERSION 3.16)
project(hello C)
add_executable(hello hello.c)
C
    rm -rf out
    TOWLINE_CC="$1" CC="$build/bin/towline-cc" cmake -S . -B out >log 2>&1 || { cat log; fail "$1: cmake"; }
    TOWLINE_CC="$1" cmake --build out >log 2>&1 || { cat log; fail "$1: cmake --build"; }
    [ "$(out/hello)" = hello ] || fail "$1: built by cmake"
    nm out/hello | grep -q __tsan_func_entry || fail "$1: cmake's program is not instrumented"
}

# As a package has it: nothing of the build tree is used any more.
try_installed() { # COMPILER
    installed=$work/installed/usr
    [ -d "$installed" ] || DESTDIR="$work/installed" cmake --install "$build" --prefix /usr \
        --component instrumented >log 2>&1 || { cat log; fail "cmake --install"; }
    TOWLINE_CC="$1" "$installed/bin/towline-cc" -print >flags
    grep -q "$work/installed" flags || fail "$1: flags that do not lead to where it is installed"
    ! grep -q "$build/" flags || fail "$1: installed, and leads to the build tree"
    TOWLINE_CC="$1" "$installed/bin/towline-cc" -O2 -o there-now hello.c ||
        fail "$1: the installed towline-cc"
    [ "$(./there-now)" = hello ] || fail "$1: a program of the installed towline-cc"
    nm there-now | grep -q __tsan_func_entry || fail "$1: it is not instrumented"
    if [ "$1" = gcc ] && command -v g++ >/dev/null; then
        cp hello.c hello.cc
        TOWLINE_CXX=g++ "$installed/bin/towline-c++" -O2 -o there-now hello.cc &&
            [ "$(./there-now)" = hello ] || fail "the installed towline-c++"
    fi
    pc=$(find "$installed" -name towline-instrumented.pc)
    if command -v pkg-config >/dev/null; then
        libs=$(PKG_CONFIG_PATH=${pc%/*} pkg-config --libs towline-instrumented)
        flags=$(PKG_CONFIG_PATH=${pc%/*} pkg-config --cflags towline-instrumented)
        # shellcheck disable=SC2086
        "$1" $flags -c hello.c -o flags.o && "$1" flags.o -o there-now $libs &&
            [ "$(./there-now)" = hello ] || fail "$1: the installed pkg-config file"
    fi
}

for compiler in gcc clang; do
    if command -v "$compiler" >/dev/null; then
        try "$compiler"
        try_cmake "$compiler"
        try_installed "$compiler"
    fi
done
# Installed elsewhere, it finds its library beside itself.
mkdir -p there/bin there/lib
cp "$build/bin/towline-cc" there/bin
cp -r "$build/lib/towline" "$build/lib/libtowline-instrumented.a" there/lib
TOWLINE_CC=gcc there/bin/towline-cc hello.c -o moved && [ "$(./moved)" = hello ] || fail "moved"
rm there/lib/libtowline-instrumented.a
! TOWLINE_CC=gcc there/bin/towline-cc hello.c -o lost 2>/dev/null || fail "without its library"
echo passed
