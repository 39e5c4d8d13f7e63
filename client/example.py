#!/usr/bin/env python3
"""Tracks this program: stores into a buffer and prints the lines that libtowline tells.

    TOWLINE_LIBRARY=build/release/lib/libtowline.so ./example.py
"""
import ctypes
import os
import sys

lib = ctypes.CDLL(os.environ.get("TOWLINE_LIBRARY", "libtowline.so.0"))
lib.towline_last_error.restype = ctypes.c_char_p
lib.towline_code_name.restype = ctypes.c_char_p


class Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class Lines(ctypes.Structure):
    _fields_ = [("address", ctypes.c_uint64), ("lines", ctypes.c_uint64),
                ("flags", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


def check(code):
    if code:
        name = lib.towline_code_name(code).decode()
        sys.exit(f"{name}: {lib.towline_last_error().decode()}")


def dirty_lines(session, epoch, room=256):
    """Addresses of the lines written since the last call, each once."""
    pages, count, cursor = (Lines * room)(), ctypes.c_size_t(), ctypes.c_uint64()
    while True:
        check(lib.towline_dirty(session, epoch, pages, ctypes.c_size_t(room), ctypes.byref(count),
                                ctypes.byref(cursor)))
        for page in pages[:count.value]:
            for line in range(64):
                if page.lines >> line & 1:
                    yield page.address + 64 * line
        if cursor.value == 0:
            return


SIZE = 1 << 20
memory = ctypes.create_string_buffer(SIZE)
start = ctypes.addressof(memory)
session = ctypes.c_void_p()
check(lib.towline_open(None, ctypes.byref(session)))
check(lib.towline_register(session, ctypes.byref(Range(start, SIZE)), ctypes.c_size_t(1)))
check(lib.towline_start(session, b"example"))
for _ in dirty_lines(session, b"example"):
    pass  # a page's first report may be the whole page; from here on lines are exact
memory[0] = memory[300000] = b"1"
for _ in dirty_lines(session, b"example"):
    pass
memory[0] = memory[300000] = b"2"
for address in dirty_lines(session, b"example"):
    print("dirty line at offset", (address - start) // 64 * 64)
lib.towline_close(session)
