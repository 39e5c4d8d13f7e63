/* Runs the real program in tests. */
#ifndef TOWLINE_CLI_RUN_H
#define TOWLINE_CLI_RUN_H

#include <stdbool.h>
#include <sys/types.h>

struct run {
    pid_t pid;
    int out, err; /* read ends; -1 = closed */
    bool terminal;
    int status; /* exit status, 128 + signal, -1 = had to be killed */
    char out_text[32768], err_text[32768];
    size_t out_size, err_size;
};

/* `arguments` ends with NULL and has no program name. With `terminal`, standard error is one. */
void run_start(struct run *run, const char *controller, const char *const *arguments,
               bool terminal);
/* Reads until `text` stands in the output (or error output), at most 5 s. */
bool run_wait_for(struct run *run, const char *text);
void run_interrupt(struct run *run);
/* Reads all and waits for the end, at most 20 s. */
int run_finish(struct run *run);

/* Start and finish; the exit status. */
int run_tow(struct run *run, const char *controller, const char *const *arguments);

#define TOW(run, fake, ...) run_tow(run, (fake)->url, (const char *const[]){__VA_ARGS__, NULL})

#endif
