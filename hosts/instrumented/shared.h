/* What an instrumented program and the agent share: one sparse file that both map.
 *
 *   file:  header | threads | rings | recent stores | summary | marks | line bytes
 *
 * Summary (a byte a page) and marks (a byte a line) are those of hosts/link/link.h, here indexed by
 * the program's own addresses, the whole 47 bits of them: no store has to be looked up in a list of
 * regions. The file is 4 TiB of holes; memory is used where the program writes, a 64th of it.
 *
 * The mark comes BEFORE the store. The compilers call the runtime before each access, so unlike in
 * QEMU the reader may take a mark and read the line while the store is still to come: it would be
 * lost. Therefore each thread says in its record which store it has announced last (`in_flight`):
 *
 *   program:  in_flight = address    mark[line] = 1    summary[page] = 1    the store itself
 *   reader:   take summary and marks, close the epoch, then read every thread's in_flight
 *
 * x86 makes a processor's stores visible in program order. Let the reader have taken the mark of a
 * store. Then in_flight = address was visible before. If the reader now finds something else there,
 * the thread has entered the runtime again since, hence the store is done and visible, and the
 * reader, who reads data only after this, sees it. If it finds the same address, nobody can tell:
 * the line is dirty in the next epoch too ("carried"). So nothing is lost; what is carried in vain
 * is at most one store a thread and epoch, and it is told apart. A thread that sleeps in a system
 * call has no store in flight: no call stands between an announcement and its store.
 *   Without in_flight a reader loses updates: runtime_test and threads_test show it.
 *   A signal between announcement and store would hide it: the runtime wraps handlers, and
 * announces and marks the store again when they return.
 *   What the runtime itself stores (memory functions, atomics) is marked afterwards, as in QEMU.
 *
 * With line states (TW_INST_OWNED) the byte of a line says what the host may do with it, and a hit
 * is a load and a compare: the runtime TESTS the byte instead of setting one.
 *
 *   program:  in_flight = address    is line[address] WRITABLE?    the store itself
 *   reader:   line[address] = SHARED    barrier in all threads    read in_flight
 *
 * Both sides store, then load, so both need a barrier between (Dekker); the program must not pay
 * for one. membarrier(2) puts it into every running thread of the program at the moment when the
 * reader needs it. After it either the thread sees SHARED and asks again, or the reader sees the
 * announcement and carries the line.
 *
 * Memory that moves (TW_INST_MOVING). Regions that the program has made for it are shared with the
 * agent. The byte of a line says whether it may be touched, and before each load, store, atomic or
 * copy the runtime looks there:
 *
 *   program:  in_flight = address    is line[address] zero?    the access itself
 *             if not: in_flight = 0    wants the lines, sleeps until their bytes change    again
 *   agent:    memory[line] = data    line &= ~ABSENT    wakes who sleeps on it
 *   agent:    all lines |= HELD    barrier in all threads    until no in_flight lies in the region
 *
 * A line is written by the agent only while it is absent, and by the program only while it is not:
 * so late data finds a line that is not absent, and is dropped (R6). What the program may do
 * without the runtime's knowledge is in docs/instrumented.md.
 *
 * Thread rules: a record and a ring belong to one thread of the program; one reader in the agent.
 * The agent trusts nothing in here: a value out of range is ignored. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_SHARED_H
#define TOWLINE_HOSTS_INSTRUMENTED_SHARED_H

#include "base/line.h"
#include "hosts/link/link.h"

#include <stddef.h>
#include <stdint.h>

#define TW_INST_MAGIC   UINT64_C(0x3154534e495754) /* "TWINST1" */
#define TW_INST_VERSION 3u

enum tw_inst_mode {
    TW_INST_DETACHED = 0,
    TW_INST_MARK = 1,    /* every store is a write-back at once */
    TW_INST_SHARING = 2, /* the same, and who wrote: line byte = writer, recent stores */
    TW_INST_OWNED = 3,   /* line states, misses and upgrades in rings */
    TW_INST_MOVING = 4,  /* mark; and a line of a region may have to be waited for */
};

/* The line byte in TW_INST_OWNED. */
enum tw_inst_line {
    TW_INST_INVALID = 0,
    TW_INST_SHARED = 1,
    TW_INST_WRITABLE = 2,
};

/* Bits of the line byte in TW_INST_MOVING, of lines of regions; 0: the line may be touched. */
enum tw_inst_wait {
    TW_INST_ABSENT = 1, /* its data has not come: who touches it asks for it */
    TW_INST_HELD = 2,   /* nobody may touch memory now */
    TW_INST_WAITED = 4, /* somebody sleeps (FUTEX_WAIT) on the aligned 32 bits that hold the byte */
};

/* The line byte in TW_INST_SHARING: 0, a thread's tag, or this. */
#define TW_INST_SEVERAL UINT8_C(255)

#define TW_INST_ADDRESS_BITS 47u
#define TW_INST_THREADS_MAX  4096u
#define TW_INST_RINGS_MAX    TW_LINK_VCPUS_MAX /* later threads mark instead */
#define TW_INST_RING_EVENTS  (1u << 15)
#define TW_INST_RECENT       1024u /* recent lines of a thread: direct mapped */
#define TW_INST_OBJECTS_MAX  64u

/* An announcement: address | (further lines << 48); 0 is none. */
#define TW_INST_MORE_SHIFT 48u
#define TW_INST_MORE_MAX   UINT64_C(0xffff) /* so many or more: any line of the program */

struct tw_inst_thread {
    uint64_t in_flight; /* program */
    uint32_t tid;       /* program: 0 is a free record */
    uint32_t ring_full; /* program: stores that were marked because the ring was full */
    uint32_t used;      /* program: 1 once it was given to a thread */
    uint32_t reserved0;
    /* TW_INST_MOVING, program: the lines of its latest wait; the count is written last. */
    uint64_t want_first, want_lines;
    uint64_t want_since_ns; /* CLOCK_MONOTONIC */
    uint64_t wants;
    uint64_t reserved[1];
};
static_assert(sizeof(struct tw_inst_thread) == TW_LINE_SIZE, "threads do not share a line");

/* What a thread stored lately to a line: a sample, overwritten by other lines. */
struct tw_inst_recent {
    uint64_t line;  /* number; 0 is none */
    uint64_t pc;    /* of the latest store */
    uint64_t bytes; /* a bit for each byte of the line that it stored to */
    uint32_t epoch; /* of the file, its low half, when `bytes` began */
    uint32_t tid;   /* whose; the thread may have ended */
};

/* An object without instrumentation in the program: its stores are not seen. */
struct tw_inst_object {
    char name[120]; /* the end of its path; zero-terminated */
    uint64_t base;  /* where it is loaded */
};

/* Memory that the program has made so that it can move: a sealed memory file, mapped once. It
 * begins at a multiple of the window (64 MiB), and no other memory shares its last window. */
#define TW_INST_REGIONS_MAX  8u
#define TW_INST_REGION_ALIGN (UINT64_C(64) << 20)
#define TW_INST_REGION_MAX   (UINT64_C(1) << 40) /* bytes */
struct tw_inst_region {
    uint64_t address, bytes; /* whole pages; 0: none */
    int32_t fd;              /* the program's number of the file */
    uint32_t reserved;
};

struct tw_inst_header {
    /* Written by the agent. */
    uint64_t magic;
    uint32_t version;
    uint32_t mode; /* enum tw_inst_mode */
    uint64_t file_bytes;
    uint64_t epoch; /* grows with each collect */
    uint64_t
        patience_ns; /* TW_INST_MOVING: so long may a touch wait before the program gets SIGBUS */
    uint64_t reserved0[3];
    /* Written by the program. */
    uint32_t attached;          /* 1: its stores are announced and marked */
    uint32_t threads_unsettled; /* threads that may have begun a store before that */
    uint32_t threads_refused;   /* threads that found no record: their stores are not safe */
    uint32_t object_count;      /* may exceed TW_INST_OBJECTS_MAX; the rest have no names */
    uint32_t barrier_ready;     /* registered for the barriers of others */
    uint32_t threads_top;       /* no thread ever had a record at or beyond this index */
    uint64_t wants;             /* TW_INST_MOVING: waits begun, counted behind their record */
    uint64_t reserved1[4];
    struct tw_inst_object objects[TW_INST_OBJECTS_MAX];
    struct tw_inst_region regions[TW_INST_REGIONS_MAX]; /* bytes: written last, cleared first */
};
static_assert(offsetof(struct tw_inst_header, attached) == TW_LINE_SIZE, "a line for each side");

#define TW_INST_ALIGN(bytes) (((bytes) + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE * TW_PAGE_SIZE)
#define TW_INST_RING_STRIDE                                                                        \
    TW_INST_ALIGN(sizeof(struct tw_link_ring) + TW_INST_RING_EVENTS * sizeof(uint64_t))
#define TW_INST_THREADS_AT TW_INST_ALIGN(sizeof(struct tw_inst_header))
#define TW_INST_RINGS_AT                                                                           \
    (TW_INST_THREADS_AT + TW_INST_ALIGN(TW_INST_THREADS_MAX * sizeof(struct tw_inst_thread)))
#define TW_INST_RECENT_AT     (TW_INST_RINGS_AT + TW_INST_RINGS_MAX * TW_INST_RING_STRIDE)
#define TW_INST_RECENT_STRIDE (TW_INST_RECENT * sizeof(struct tw_inst_recent))
#define TW_INST_HEAD_BYTES    (TW_INST_RECENT_AT + TW_INST_THREADS_MAX * TW_INST_RECENT_STRIDE)
#define TW_INST_SUMMARY_AT    TW_INST_HEAD_BYTES
#define TW_INST_MARKS_AT                                                                           \
    (TW_INST_SUMMARY_AT + (UINT64_C(1) << (TW_INST_ADDRESS_BITS - TW_PAGE_SHIFT)))
#define TW_INST_LINES_AT                                                                           \
    (TW_INST_MARKS_AT + (UINT64_C(1) << (TW_INST_ADDRESS_BITS - TW_LINE_SHIFT)))
#define TW_INST_FILE_BYTES                                                                         \
    (TW_INST_LINES_AT + (UINT64_C(1) << (TW_INST_ADDRESS_BITS - TW_LINE_SHIFT)))

/* What travels on the unix socket, a message a packet:
 *
 *   program                     agent
 *   hello           ----->
 *                   <-----      order: mode DETACHED           known, and not tracked
 *                   <-----      order: a mode, with the file   be tracked
 *   ready           ----->                                     its stores are marked from here on
 *                   <-----      order: GO                      only where HOLD was said before
 *                   <-----      order: mode DETACHED           not any more
 *
 * and so on with the next file. A program at its start waits for the first order, so that one that
 * is expected is tracked from its first store on; without an agent, or with a silent one, it goes
 * on alone. The connection stays open: its end means that the other side has gone. */
struct tw_inst_hello { /* program to agent */
    uint64_t magic;
    uint32_t version;
    uint32_t pid; /* as the program sees itself; who it is, the kernel says */
};
#define TW_INST_HOLD      1u /* after `ready`, wait for GO: at most TW_INST_HOLD_MS */
#define TW_INST_GO        2u
#define TW_INST_HOLD_MS   5000
#define TW_INST_ANSWER_MS 2000 /* an agent that says nothing is none */
struct tw_inst_order { /* agent to program, with the file's descriptor where it is tracked */
    uint64_t magic;
    uint32_t version;
    uint32_t mode; /* enum tw_inst_mode */
    uint64_t file_bytes;
    uint32_t flags, reserved;
};
struct tw_inst_ready { /* program to agent: `attached` is set */
    uint64_t magic;
};
static_assert(sizeof(struct tw_inst_hello) == 16 && sizeof(struct tw_inst_order) == 32 &&
                  sizeof(struct tw_inst_ready) == 8,
              "as they travel");

/* A program that carries the runtime says so in a note of this name and type, so that it is known
 * before its first instruction. */
#define TW_INST_NOTE_NAME    "Towline"
#define TW_INST_NOTE_TYPE    1u
#define TW_INST_NOTE_SECTION ".note.towline"
struct tw_inst_note {
    uint32_t name_bytes, description_bytes, type;
    char name[8];
    uint32_t version; /* TW_INST_VERSION */
};
static_assert(sizeof(struct tw_inst_note) == 24, "an ELF note");

#define TW_INST_SOCKET_ENV     "TOWLINE_INSTRUMENTED" /* the agent's socket; "off": never attach */
#define TW_INST_SOCKET_DEFAULT "/run/towline/instrumented.sock"

/* The number of an announced store's lines. */
static inline uint64_t tw_inst_flight_lines(uint64_t in_flight)
{
    return (in_flight >> TW_INST_MORE_SHIFT) + 1;
}

static inline uint64_t tw_inst_flight_address(uint64_t in_flight)
{
    return in_flight & ((UINT64_C(1) << TW_INST_MORE_SHIFT) - 1);
}

/* A thread's tag in TW_INST_SHARING: 1..254; distant threads may share one. */
static inline uint8_t tw_inst_tag(uint32_t thread)
{
    return (uint8_t)(thread % 254 + 1);
}

#endif
