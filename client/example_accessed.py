#!/usr/bin/env python3
"""Runs a program of towline-cc and prints how much of the pages that it uses it really uses.

    TOWLINE_LIBRARY=build/release/lib/libtowline.so ./example_accessed.py PROGRAM [ARGUMENT...]

The program finds the agent by TOWLINE_INSTRUMENTED or at /run/towline/instrumented.sock.
"""
import ctypes
import os
import subprocess
import sys
import time

lib = ctypes.CDLL(os.environ.get("TOWLINE_LIBRARY", "libtowline.so.0"))
lib.towline_last_error.restype = ctypes.c_char_p
lib.towline_code_name.restype = ctypes.c_char_p

INSTRUMENTED, ABORTED, EPOCHS, EPOCH_SECONDS = 2, 10, 3, 0.2


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("socket", ctypes.c_char_p), ("pid", ctypes.c_int64),
                ("exact", ctypes.c_uint32), ("timeout_ms", ctypes.c_uint32),
                ("attachment", ctypes.c_uint32), ("sharing", ctypes.c_uint32),
                ("accessed", ctypes.c_uint32), ("bytes", ctypes.c_uint32)]


class Lines(ctypes.Structure):
    _fields_ = [("address", ctypes.c_uint64), ("lines", ctypes.c_uint64),
                ("flags", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


def check(code):
    if code:
        name = lib.towline_code_name(code).decode()
        sys.exit(f"{name}: {lib.towline_last_error().decode()}")


def count(read, session, cursor, room=256):
    """Lines and pages of one of the two lists of the epoch that was collected."""
    pages, got, cursor = (Lines * room)(), ctypes.c_size_t(), ctypes.c_uint64(cursor)
    line_count = page_count = 0
    while True:
        check(read(session, b"example", pages, ctypes.c_size_t(room), ctypes.byref(got),
                   ctypes.byref(cursor)))
        page_count += got.value
        line_count += sum(bin(page.lines).count("1") for page in pages[:got.value])
        if cursor.value == 0:
            return line_count, page_count


def show(pid):
    session, cursor = ctypes.c_void_p(), ctypes.c_uint64()
    options = Options(size=ctypes.sizeof(Options), pid=pid, attachment=INSTRUMENTED, accessed=1)
    check(lib.towline_open(ctypes.byref(options), ctypes.byref(session)))
    check(lib.towline_start(session, b"example"))
    for _ in range(EPOCHS):
        time.sleep(EPOCH_SECONDS)
        code = lib.towline_collect(session, b"example", ctypes.c_uint32(0), ctypes.byref(cursor),
                                   None)
        if code == ABORTED:
            break  # it has ended, and all of it was told
        check(code)
        written, _ = count(lib.towline_dirty, session, cursor.value)
        accessed, pages = count(lib.towline_accessed, session, cursor.value)
        used = 100 * accessed // (64 * pages) if pages else 0
        print(f"{written} lines written, {accessed} accessed in {pages} pages, {used} % of them")
    lib.towline_close(session)


if len(sys.argv) < 2:
    sys.exit(__doc__)
program = subprocess.Popen(sys.argv[1:])
try:
    time.sleep(EPOCH_SECONDS)  # it makes itself known to the agent when it starts
    show(program.pid)
finally:
    program.kill()
    program.wait()
