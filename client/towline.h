/* libtowline: which cache lines did a program write, and which did it use?
 *
 * A session tracks one program (this one, or another by pid) through the agent of this host:
 *
 *   towline_open(&options, &session);
 *   towline_register(session, ranges, count);       nothing registered: all that is writable
 *   towline_start(session, "mine");                 an epoch begins: stores from now on count
 *   towline_dirty(session, "mine", lines, max, &count, &cursor);   ends it, begins the next
 *   towline_close(session);
 *
 * A session that was opened with `accessed` tells the lines that were loaded or stored to as well.
 *
 * Epochs are named and independent; so are sessions, whose ranges may overlap. Every store that was
 * made before towline_dirty() was called with cursor 0 is in its answer or in an earlier one; a
 * store made during the call may be in this answer or the next.
 *
 * What an answer means: its granularity is a line of 64 bytes, or a page of 4096 bytes where the
 * lines were not known (TOWLINE_WHOLE). What cannot be seen is in towline_info().
 *
 * Functions return TOWLINE_OK or a code; towline_last_error() has the text, of the calling thread.
 * They may be called from any thread; calls on one session wait for each other. A session does not
 * outlive its process and is of no use in a forked child. None waits longer than the timeout;
 * after TOWLINE_DEADLINE_EXCEEDED or TOWLINE_UNAVAILABLE the session can only be closed. */
#ifndef TOWLINE_H
#define TOWLINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TOWLINE_API __attribute__((visibility("default")))
#else
#define TOWLINE_API
#endif

#define TOWLINE_SOCKET_DEFAULT "/run/towline/agent.sock" /* or $TOWLINE_SOCKET */
#define TOWLINE_LINE_SIZE      64u
#define TOWLINE_PAGE_SIZE      4096u

enum towline_code {
    TOWLINE_OK = 0,
    TOWLINE_CANCELLED = 1, /* by a signal, where that was asked for */
    TOWLINE_UNKNOWN = 2,
    TOWLINE_INVALID_ARGUMENT = 3,
    TOWLINE_DEADLINE_EXCEEDED = 4, /* no answer in time */
    TOWLINE_NOT_FOUND = 5,         /* no such program, epoch, or nothing is mapped there */
    TOWLINE_ALREADY_EXISTS = 6,    /* an epoch of this name */
    TOWLINE_PERMISSION_DENIED = 7, /* not a program of yours */
    TOWLINE_RESOURCE_EXHAUSTED = 8,
    TOWLINE_FAILED_PRECONDITION = 9, /* not in this state; or memory that cannot be tracked */
    TOWLINE_ABORTED = 10,            /* the program has ended or executed another one */
    TOWLINE_OUT_OF_RANGE = 11,       /* a cursor of another answer */
    TOWLINE_UNIMPLEMENTED = 12,      /* the kernel, or this kind of tracking, cannot */
    TOWLINE_INTERNAL = 13,
    TOWLINE_UNAVAILABLE = 14, /* no agent, or it went away; the program is as it was before */
    TOWLINE_DATA_LOSS = 15
};

/* "NOT_FOUND" and the like; never NULL. */
TOWLINE_API const char *towline_code_name(int code);
/* What the last failed call of this thread had to say; never NULL, valid until the next call. */
TOWLINE_API const char *towline_last_error(void);

typedef struct towline_session towline_session;

enum towline_attachment {
    TOWLINE_ANY = 0,      /* the best that there is for the program: towline_info() says which */
    TOWLINE_PROCESS,      /* from outside: pages from the kernel, lines by comparing */
    TOWLINE_INSTRUMENTED, /* by the program's own instrumentation (towline-cc): exact lines */
};

struct towline_options {
    size_t size;         /* sizeof(struct towline_options) */
    const char *socket;  /* of the agent; NULL = $TOWLINE_SOCKET or the default */
    int64_t pid;         /* the program; 0 = this one */
    uint32_t exact;      /* not 0: a copy of everything at the start, so that lines are known from a
                            page's first report on; costs memory and time */
    uint32_t timeout_ms; /* of each call; 0 = 30 s */
    uint32_t attachment; /* enum towline_attachment */
    uint32_t sharing;    /* not 0: towline_shared() as well; instrumented programs, at a price */
    uint32_t accessed;   /* not 0: towline_accessed() as well; instrumented programs, at a price */
    uint32_t bytes;      /* not 0: TOWLINE_COUNTS_BYTES of instrumented programs, too, at a price */
};

/* Connects. NULL options: this program. */
TOWLINE_API int towline_open(const struct towline_options *options, towline_session **session);
/* The program is tracked no more when it returns (an agent that does not answer is given ten
 * seconds); nothing of it changes. NULL is fine. */
TOWLINE_API void towline_close(towline_session *session);

/* Of the program's addresses; of any alignment, they may overlap. */
struct towline_range {
    uint64_t start;  /* bytes */
    uint64_t length; /* bytes */
};
/* Adds ranges, before the first start; at most 4096. */
TOWLINE_API int towline_register(towline_session *session, const struct towline_range *ranges,
                                 size_t count);

/* Begins an epoch; NULL is named "default". Stores before the call are not reported. */
TOWLINE_API int towline_start(towline_session *session, const char *epoch);
/* Ends an epoch for good. Its name may be used again. */
TOWLINE_API int towline_stop(towline_session *session, const char *epoch);

#define TOWLINE_WHOLE 1u /* in flags: the lines were not known, so all of the page are told */

struct towline_lines {
    uint64_t address; /* of a page of the program */
    uint64_t lines;   /* bit i: the line at address + 64 * i */
    uint32_t flags;
    uint32_t reserved;
};

/* Reads and clears. *cursor 0: ends the present epoch, begins the next, and gives the first lines;
 * otherwise goes on with that answer. Fills at most `max`; sets *cursor to 0 when all was given,
 * else to what the next call needs: a cursor is good once. Pages come in no particular order, each
 * once. What is not read of an answer is in the next one.
 * TOWLINE_ABORTED: the program has ended, and everything that is known was given before. */
TOWLINE_API int towline_dirty(towline_session *session, const char *epoch,
                              struct towline_lines *lines, size_t max, size_t *count,
                              uint64_t *cursor);
/* The same of lines that were accessed: loaded, stored to, or both. An epoch has the two lists,
 * which end together; each is read with cursors of its own, and what is not read of one is in its
 * next answer. For both lists of the same epoch: towline_collect(), then each with that cursor.
 * A load that is being made when an epoch ends may be told of that epoch alone.
 * TOWLINE_UNIMPLEMENTED: loads are not seen, which is so for every program that was not compiled
 * for it; no coarser answer stands in for it. TOWLINE_FAILED_PRECONDITION: the session was opened
 * without. */
TOWLINE_API int towline_accessed(towline_session *session, const char *epoch,
                                 struct towline_lines *lines, size_t max, size_t *count,
                                 uint64_t *cursor);

#define TOWLINE_SAME_VALUE   1u /* a line rewritten with what it held is told */
#define TOWLINE_WHOLE_PAGES  2u /* a page may be told as a whole */
/* Contents are compared, and no page is registered in part: the meter has bytes. */
#define TOWLINE_COUNTS_BYTES 4u
#define TOWLINE_LOADS        8u /* towline_accessed() has answers, the meter accessed lines */

struct towline_info {
    uint64_t session;     /* id in the agent */
    uint64_t pid;         /* of the program */
    uint32_t granularity; /* bytes of a line */
    uint32_t flags;
    const char *blind_spots; /* a sentence a line; valid until towline_close() */
    uint32_t attachment;     /* enum towline_attachment; never ANY */
    uint32_t sharing;        /* towline_shared() has answers */
    const char *why;         /* this attachment; valid until towline_close() */
};
/* After the first start. */
TOWLINE_API int towline_info(towline_session *session, struct towline_info *out);

/* ---- The meter: what epochs come to, without their lines ------------------------------------- */

struct towline_sums {
    uint64_t epochs;
    uint64_t lines;        /* of 64 bytes; a page known only as a whole counts all its lines */
    uint64_t pages;        /* of 4 KiB, with a dirty line */
    uint64_t whole_pages;  /* of these, where the lines were not known */
    uint64_t regions;      /* of 2 MiB, with a dirty line */
    uint64_t regions_lost; /* pages whose region was not counted: more than 65536 in an epoch */
    uint64_t duration_ns;
    /* With TOWLINE_COUNTS_BYTES; else 0. */
    uint64_t known_lines;   /* of `lines`, those whose contents were compared */
    uint64_t changed_bytes; /* of these; one that changed in two passes counts twice */
    uint64_t clean_pages;   /* written, and equal in every byte; not in `pages`. Where each store is
                               seen (TOWLINE_SAME_VALUE) 0: same_lines says more */
    /* With TOWLINE_LOADS; else 0. */
    uint64_t accessed_lines; /* loaded or stored to */
    uint64_t accessed_pages; /* of 4 KiB, with such a line */
    /* With TOWLINE_COUNTS_BYTES and TOWLINE_SAME_VALUE; else 0. */
    uint64_t same_lines; /* of known_lines: stored to, and hold what they held */
};
struct towline_hot {
    uint64_t address; /* of a region of 2 MiB */
    uint32_t lines, pages;
    uint64_t changed_bytes; /* with TOWLINE_COUNTS_BYTES */
};

#define TOWLINE_PACED                                                                              \
    1u /* waits until a pass would not slow the program beyond the agent's budget */
#define TOWLINE_INTERRUPTIBLE 2u /* a signal ends the wait: TOWLINE_CANCELLED; then only close */
#define TOWLINE_ENDED         1u /* the program has: stores since the last pass are not known */

/* Ends the present epoch and begins the next; then towline_dirty() and towline_accessed() with the
 * cursor, or figures.
 * *ended (may be NULL) gets TOWLINE_ENDED or 0. */
TOWLINE_API int towline_collect(towline_session *session, const char *epoch, uint32_t flags,
                                uint64_t *cursor, uint32_t *ended);
/* What was collected comes to; what was not read of it is dropped. `last` is that epoch, `total`
 * all of the session. The hottest regions first; at most 64. Each pointer may be NULL. */
TOWLINE_API int towline_figures(towline_session *session, const char *epoch,
                                struct towline_sums *last, struct towline_sums *total,
                                struct towline_hot *hot, size_t hot_max, size_t *hot_count);

#define TOWLINE_SHARED_THREADS 8u
struct towline_shared_line {
    uint64_t address;      /* of the line, in the program */
    uint32_t falsely;      /* not 0: no byte was written by two of the threads */
    uint32_t thread_count; /* below; more may have written */
    struct {
        uint64_t pc;    /* of its latest store to the line */
        uint64_t bytes; /* bit i: it stored to byte i of the line */
        uint32_t tid, reserved;
    } threads[TOWLINE_SHARED_THREADS];
};
/* Lines that several threads stored to in the epoch that was collected last: those that they share
 * falsely first, at most 64. *total (may be NULL) is how many there were; more may have been. A
 * sample: what a thread knows of a line may have been displaced by its stores to other lines.
 * TOWLINE_FAILED_PRECONDITION: the session is without sharing. */
TOWLINE_API int towline_shared(towline_session *session, const char *epoch,
                               struct towline_shared_line *lines, size_t max, size_t *count,
                               uint64_t *total);

struct towline_listed {
    uint64_t session, pid;
    uint32_t uid;   /* whose session it is */
    uint32_t ended; /* the program has */
    uint32_t exact;
    uint32_t attachment; /* enum towline_attachment */
    uint32_t sharing;    /* the next two are known */
    uint32_t counts_bytes;
    uint32_t accessed, reserved;     /* not 0: the sums have accessed lines */
    uint64_t shared, shared_falsely; /* lines that threads share, in the last epoch */
    struct towline_sums last, total;
    char name[16]; /* of the program; not to be trusted */
};
/* The agent's sessions that this user may see: his own, all for root. At most 64. */
TOWLINE_API int towline_list(const char *socket, struct towline_listed *out, size_t max,
                             size_t *count);

#define TOWLINE_GUEST_HOT 8u
struct towline_guest {
    char name[64];                   /* of a virtual machine */
    uint64_t pid;                    /* of its QEMU */
    uint64_t own_ns;                 /* of the agent's processor time, for the last epoch */
    struct towline_sums last, total; /* no epochs: it is being measured for the first time */
    struct towline_hot hot[TOWLINE_GUEST_HOT]; /* addresses are offsets into its memory */
    uint32_t hot_count, reserved;
};
/* Virtual machines of the agent and what they write; none for others than root. They are measured,
 * in epochs of a second, while somebody asks, and for ten seconds more. At most 64. */
TOWLINE_API int towline_guests(const char *socket, struct towline_guest *out, size_t max,
                               size_t *count);

/* Before a child of yours (options.pid) executes its program: waits until the agent is ready for
 * it. Then let the child go on, and towline_start() attaches before its first instruction. */
TOWLINE_API int towline_catch(towline_session *session);

#ifdef __cplusplus
}
#endif

#endif
