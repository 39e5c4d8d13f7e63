/* The amplification meter of one program, through this machine's agent. */
#ifndef TOWLINE_CLI_METER_H
#define TOWLINE_CLI_METER_H

#include "cli/heat.h"
#include "cli/redraw.h"
#include "cli/sharing.h"
#include "cli/tow.h"
#include "client/towline.h"

#include <stdint.h>
#include <sys/types.h>

#define TOW_METER_HOT 5u

struct tow_meter {
    const char *socket; /* NULL = the usual */
    pid_t pid;
    unsigned every_ms;
    bool exact;
    pid_t child;                    /* 0, or the program: its end ends an epoch at once */
    uint32_t attachment;            /* enum towline_attachment */
    struct tow_heat *heat;          /* not NULL: keeps where lines were */
    bool sharing;                   /* tells which lines threads share */
    bool accessed;                  /* and how many lines were loaded or stored to */
    bool bytes;                     /* contents of an instrumented program, too */
    struct tow_heat *heat_accessed; /* not NULL: the same as `heat` of accessed lines */
    struct tow_sharing shared;
    const char *kind; /* of attachment, once started; NULL before */
    char why[256];

    towline_session *session;
    char name[64]; /* of the program, safe to print */
    uint64_t started_ns, now_ns;
    uint64_t until_ns; /* no epoch begins after it; TW_NEVER = none is too late */
    struct towline_sums last, total;
    struct towline_hot hot[TOW_METER_HOT];
    size_t hot_count;
    bool counts_bytes; /* the sums have known_lines, changed_bytes and clean_pages */
    bool counts_same;  /* and same_lines, in the place of clean_pages */
    bool ended;        /* the program has, or executed another one */
};

/* Connects; `catch`: the program waits before its execve. */
int tow_meter_open(struct tow *tow, struct tow_meter *meter, bool catch);
/* Attaches; counting begins. */
int tow_meter_start(struct tow *tow, struct tow_meter *meter);
/* The next epoch: waits for its end, and counts it. An exit status; *counted is false when there
 * was nothing more to count, because of an interruption or the program's end. */
int tow_meter_next(struct tow *tow, struct tow_meter *meter, bool *counted);
/* After start: it ends then, or two seconds later when the program's budget does not let the last
 * epoch end before; that one is not counted. */
void tow_meter_limit(struct tow_meter *meter, unsigned for_ms);
void tow_meter_close(struct tow_meter *meter);

/* Whether a child of ours has not ended. */
bool tow_meter_child_lives(pid_t pid);

/* The last failure of libtowline on standard error; the exit status for it. */
int tow_client_failed(struct tow *tow, int code);

/* Bytes of a count of lines, pages, regions; "3.1 times" as in tow_times_format. */
#define TOW_LINE_BYTES   UINT64_C(64)
#define TOW_PAGE_BYTES   UINT64_C(4096)
#define TOW_REGION_BYTES UINT64_C(2097152)

void tow_meter_print_json(struct tow_meter *meter, FILE *out);
void tow_meter_print_line(struct tow_meter *meter, FILE *out);
void tow_meter_print_block(struct tow_meter *meter, FILE *out);
void tow_meter_print_summary(struct tow_meter *meter, FILE *out);

struct tow_arguments;
/* --socket, --exact, --every, --attachment, --sharing, --accessed, --bytes. An exit status. */
int tow_meter_options(struct tow *tow, const struct tow_arguments *arguments,
                      struct tow_meter *meter);

/* Shows meters until interrupted, until the program ends, or until the limit. */
int tow_meter_follow(struct tow *tow, struct tow_meter *meter, FILE *out);

#endif
