/* An agent and a program to track, for the client's tests; both end with the test. */
#ifndef TOWLINE_CLIENT_FIXTURE_H
#define TOWLINE_CLIENT_FIXTURE_H

#include "client/towline.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

extern char fixture_socket[96];
extern char fixture_instrumented[96]; /* the agent's socket for programs of towline-cc */
extern pid_t fixture_agent;

void fixture_open(void); /* a folder, an agent that serves */
void fixture_close(void);
void fixture_agent_start(void);
void fixture_agent_kill(void); /* by SIGKILL */

struct subject {
    pid_t pid;
    FILE *in, *out;
    uint64_t arena; /* its address; 64 pages */
};
void subject_start(struct subject *s);
void subject_start_instrumented(struct subject *s);        /* the same, made by towline-cc */
void subject_tell(struct subject *s, const char *command); /* does not wait */
void subject_do(struct subject *s, const char *command);   /* waits for its answer */
/* It still does what it is told: tracking has done it no harm. */
void subject_well(struct subject *s);
void subject_end(struct subject *s); /* kills, reaps */

/* A session on the whole arena, with an epoch of this name. */
towline_session *session_on(const struct subject *s, const char *epoch);
/* Collects, and gives the lines of the arena's page; the rest is counted in *pages. */
uint64_t session_lines(towline_session *session, const char *epoch, uint64_t page_address,
                       size_t *pages, bool *whole);
/* Collects epoch "a" until the agent has noticed that the program has ended. */
void collected_until_ended(towline_session *s);
/* A busy program under several collectors; then the agent dies in the middle of it, and is started
 * again. */
void hot_program_survives(struct subject *subject);

#endif
