/* A subject (hosts/instrumented/subjects/) under a test: started, attached, told what to do. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_TEST_SUBJECT_H
#define TOWLINE_HOSTS_INSTRUMENTED_TEST_SUBJECT_H

#include "hosts/instrumented/instrumented.h"

#define SUBJECT_BYTES       (1u << 20)
#define SUBJECT_LINES       (SUBJECT_BYTES / TW_LINE_SIZE)
#define SUBJECT_PATIENCE_NS UINT64_C(20000000000)

struct subject {
    pid_t pid;
    int to, from; /* its standard input and output */
    char folder[64], socket[96];
    struct tw_instrumented_server *server;
    struct tw_instrumented *program;
    struct tw_instrumented_watch *watch;
    struct tw_tracker *tracker;
    uint64_t region; /* its address in the program */
};

/* Each of these ends the test program with a text when something fails. */
void subject_prepare(struct subject *s); /* a folder for its socket */
void subject_listen(struct subject *s);
void subject_start(struct subject *s, const char *path);
void subject_attach(struct subject *s, const struct tw_instrumented_config *config);
void subject_region(struct subject *s);
void subject_track(struct subject *s);
/* All of these in order, as a program that finds its agent at once. */
void subject_open(struct subject *s, const char *path, const struct tw_instrumented_config *config);
void subject_close(struct subject *s);

void subject_tell(struct subject *s, char scenario);
void subject_wait(struct subject *s); /* for its answer */

/* Closes the epoch and puts out its lines: one byte a line of the region. Returns how many. */
size_t subject_collect(struct subject *s, uint8_t dirty[SUBJECT_LINES]);
void subject_read(const struct subject *s, void *copy); /* the whole region */
/* The word at the beginning of a line. */
uint64_t subject_peek(const struct subject *s, uint64_t line);
void subject_poke(const struct subject *s, uint64_t line, uint64_t value);
/* Waits until the word has the value. */
void subject_await(const struct subject *s, uint64_t line, uint64_t value);

#endif
