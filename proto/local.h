/* The contract between an agent and local programs: what travels over its unix socket.
 *
 * A stream of messages, each a header and a body of at most TW_LOCAL_BODY_MAX bytes, in the byte
 * order of the machine (both ends are on it). The program asks, the agent answers, one at a time,
 * with the same kind. An answer with a code other than 0 has a text as its body.
 *
 * A connection has at most one session, which ends with it. Whoever asks is who the kernel says
 * (SO_PEERCRED); who may track what is in docs/security.md.
 *
 * Plain structures instead of protobuf, so that a library inside other people's programs brings
 * nothing along. */
#ifndef TOWLINE_PROTO_LOCAL_H
#define TOWLINE_PROTO_LOCAL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define TW_LOCAL_MAGIC      UINT32_C(0x4c574f54) /* "TOWL" */
#define TW_LOCAL_VERSION    3u
#define TW_LOCAL_BODY_MAX   (128u * 1024u)
#define TW_LOCAL_RANGES_MAX 4096u
#define TW_LOCAL_READ_MAX   4096u /* pages in one answer */
#define TW_LOCAL_HOT_MAX    64u
#define TW_LOCAL_LIST_MAX   64u
#define TW_LOCAL_NAME_SIZE  32u
#define TW_LOCAL_TEXT_MAX   640u

enum tw_local_kind {
    TW_LOCAL_CATCH = 1,   /* a child of the caller waits before its execve; be ready for it */
    TW_LOCAL_OPEN,        /* attaches and watches */
    TW_LOCAL_EPOCH,       /* begins a named epoch; answered when it has begun */
    TW_LOCAL_COLLECT,     /* ends the present epoch and begins the next; answered when it has */
    TW_LOCAL_READ,        /* the next lines of what was collected */
    TW_LOCAL_FIGURES,     /* what was collected comes to; reads the rest of it */
    TW_LOCAL_EPOCH_CLOSE, /* the epoch is over */
    TW_LOCAL_ACCESSED,    /* the same as READ of lines that were loaded or stored to */
    TW_LOCAL_LIST,        /* sessions that the caller may see; needs none of its own */
    TW_LOCAL_SHARED,      /* lines of the last collect that several threads stored to */
    TW_LOCAL_GUESTS,      /* VMs and what they write, to root; measures for ten seconds more */
    TW_LOCAL_KIND_END,
};

struct tw_local_header {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t length; /* of the body, bytes */
    uint32_t code;   /* enum tw_code; 0 in requests */
};

#define TW_LOCAL_EXACT   1u /* lines are known from a page's first report on */
#define TW_LOCAL_PROCESS 8u /* from outside, whatever the program is; */
#define TW_LOCAL_INSTRUMENTED                                                                      \
    16u                       /* by its own instrumentation or not at all; neither: the best       \
                               */
#define TW_LOCAL_SHARING 32u  /* and which threads write to the same lines (instrumented) */
#define TW_LOCAL_LOADS   512u /* and which lines are loaded: ACCESSED (instrumented) */
/* Contents are compared also where that has a price (instrumented): see TW_LOCAL_COUNTS_BYTES. */
#define TW_LOCAL_BYTES   1024u
struct tw_local_catch {
    uint64_t pid;
    uint32_t flags; /* those above */
    uint32_t reserved;
};

#define TW_LOCAL_CAUGHT 2u /* the program that TW_LOCAL_CATCH named */
struct tw_local_open {     /* followed by ranges */
    uint64_t pid;          /* 0 = the caller itself */
    uint32_t flags;
    uint32_t range_count; /* 0 = everything that the program may write to */
};
struct tw_local_range {
    uint64_t start, length; /* bytes */
};

#define TW_LOCAL_SAME_VALUE   64u  /* a line rewritten with what it held is told */
#define TW_LOCAL_WHOLE_PAGES  128u /* a page may be told as a whole */
#define TW_LOCAL_COUNTS_BYTES 256u /* contents are compared: sums have bytes and clean pages */
struct tw_local_opened { /* TW_LOCAL_EXACT to TW_LOCAL_LOADS in its flags, too; followed by
                            the blind spots, a sentence a line, and why it is this kind */
    uint64_t session, pid;
    uint32_t granularity; /* bytes of a line */
    uint32_t flags;
    uint32_t text_length; /* of the blind spots */
    uint32_t why_length;
};

struct tw_local_epoch {
    char name[TW_LOCAL_NAME_SIZE]; /* ends with a zero */
};
struct tw_local_epoch_begun {
    uint32_t epoch, reserved;
};

#define TW_LOCAL_PACED 1u   /* waits until the program's budget allows a pass */
struct tw_local_epoch_ask { /* COLLECT, FIGURES, EPOCH_CLOSE, SHARED */
    uint32_t epoch;
    uint32_t flags;
};

#define TW_LOCAL_ENDED 1u /* the program has: stores since the last pass are not known */
struct tw_local_collected {
    uint64_t cursor; /* for READ, and for ACCESSED */
    uint32_t flags, reserved;
};

struct tw_local_read { /* READ, ACCESSED: each has cursors of its own */
    uint64_t cursor;   /* of the answer before; good once */
    uint32_t epoch, max;
};
struct tw_local_lines_head { /* followed by lines */
    uint64_t cursor;         /* for the next READ; 0 = all read */
    uint32_t count, reserved;
};
#define TW_LOCAL_WHOLE 1u /* the lines were not known: all that are watched */
struct tw_local_lines {
    uint64_t address; /* of a page of the program */
    uint64_t lines;   /* bit i: line i */
    uint32_t flags, reserved;
};

struct tw_local_sums {
    uint64_t epochs, lines, pages, whole_pages, regions, regions_lost, duration_ns;
    uint64_t known_lines, changed_bytes, clean_pages; /* 0 without TW_LOCAL_COUNTS_BYTES */
    uint64_t accessed_lines, accessed_pages;          /* 0 without TW_LOCAL_LOADS */
    /* 0 without TW_LOCAL_COUNTS_BYTES, or without TW_LOCAL_SAME_VALUE or the instrumented kind */
    uint64_t same_lines;
};
struct tw_local_hot {
    uint64_t address; /* of a region of 2 MiB */
    uint32_t lines, pages;
    uint64_t changed_bytes;
};
struct tw_local_figures { /* followed by hot regions, the hottest first */
    struct tw_local_sums last, total;
    uint32_t hot_count, reserved;
};

#define TW_LOCAL_SHARED_MAX     64u
#define TW_LOCAL_SHARED_THREADS 8u
struct tw_local_shared_head { /* SHARED: followed by lines, falsely shared ones first */
    uint64_t total;           /* more may have been than are told */
    uint32_t count, reserved;
};
#define TW_LOCAL_FALSELY 1u /* no byte was written by two of the threads */
struct tw_local_shared {
    uint64_t address; /* of the line */
    uint32_t flags, thread_count;
    struct {
        uint64_t pc;    /* of its latest store to the line */
        uint64_t bytes; /* bit i: it stored to byte i of the line */
        uint32_t tid, reserved;
    } threads[TW_LOCAL_SHARED_THREADS];
};

struct tw_local_listed { /* LIST: any number of them */
    uint64_t session, pid;
    uint32_t uid, flags; /* TW_LOCAL_EXACT to _LOADS, TW_LOCAL_GONE, TW_LOCAL_COUNTS_BYTES */
    uint64_t shared, shared_falsely; /* lines that threads share, in the last epoch */
    struct tw_local_sums last, total;
    char name[16]; /* of the program; ends with a zero */
};
#define TW_LOCAL_GONE 4u

#define TW_LOCAL_GUEST_HOT 8u
struct tw_local_guest {               /* GUESTS: any number of them */
    char name[64];                    /* of the VM; ends with a zero */
    uint64_t pid;                     /* of its QEMU */
    uint64_t own_ns;                  /* of the agent's processor time, for the last epoch */
    struct tw_local_sums last, total; /* no epochs: it has only just begun */
    struct tw_local_hot hot[TW_LOCAL_GUEST_HOT]; /* addresses are offsets into its memory */
    uint32_t hot_count, reserved;
};

static_assert(sizeof(struct tw_local_header) == 16, "as it travels");
static_assert(sizeof(struct tw_local_open) == 16 && sizeof(struct tw_local_range) == 16,
              "as they travel");
static_assert(sizeof(struct tw_local_opened) == 32 && sizeof(struct tw_local_collected) == 16 &&
                  sizeof(struct tw_local_read) == 16,
              "as they travel");
static_assert(sizeof(struct tw_local_lines_head) == 16 && sizeof(struct tw_local_lines) == 24,
              "as they travel");
static_assert(sizeof(struct tw_local_shared_head) == 16 && sizeof(struct tw_local_shared) == 208,
              "as they travel");
static_assert(sizeof(struct tw_local_figures) == 216 && sizeof(struct tw_local_listed) == 264,
              "as they travel");
static_assert(sizeof(struct tw_local_guest) == 488 &&
                  TW_LOCAL_LIST_MAX * sizeof(struct tw_local_guest) <= TW_LOCAL_BODY_MAX,
              "as they travel");
static_assert(sizeof(struct tw_local_open) + TW_LOCAL_RANGES_MAX * sizeof(struct tw_local_range) <=
                      TW_LOCAL_BODY_MAX &&
                  sizeof(struct tw_local_lines_head) +
                          TW_LOCAL_READ_MAX * sizeof(struct tw_local_lines) <=
                      TW_LOCAL_BODY_MAX,
              "the largest messages fit");

#endif
