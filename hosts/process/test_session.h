/* A session as a service has one, for the tests: a watch, a tracker, and what a collect told. Every
 * failure ends the test program by abort(). */
#ifndef TOWLINE_HOSTS_PROCESS_TEST_SESSION_H
#define TOWLINE_HOSTS_PROCESS_TEST_SESSION_H

#include "hosts/process/process.h"
#include "hosts/process/test_target.h"

/* The program of the present test, and what is attached to it. */
extern struct target target;
extern struct tw_process *process;
void attach_with(const struct tw_process_config *config); /* NULL = the usual */
void attach(void);
void end(void); /* detaches, ends the program */

struct told_page {
    uint64_t address; /* of the program */
    uint64_t lines;
    bool whole;
};

struct session {
    struct tw_process *process;
    struct tw_process_watch *watch;
    struct tw_tracker *tracker;
    struct told_page *pages; /* of the last collect, by address */
    size_t count;
};

/* Watches the range (length 0: everything), arms it, starts the tracker. */
void session_start(struct session *s, struct tw_process *attached, const char *name,
                   uint64_t address, uint64_t length);
void session_end(struct session *s);

void must_pass(struct tw_process *attached);
void session_read(struct session *s);    /* collect and read, without a pass */
void session_collect(struct session *s); /* a pass before it */

/* The lines told of the address' page; 0 when it was not told. *whole may be NULL. */
uint64_t session_lines(const struct session *s, uint64_t address, bool *whole);

#endif
