/* The programs of this host that carry the runtime and have made themselves known: they run at full
 * speed until somebody wants to track one.
 *
 *   unknown --hello--> known <--tw_lobby_track(), tw_instrumented_close()--> tracked
 *
 * From any of them out, when the program ends, executes another one, or says what it should not.
 * Who a program is, the kernel says (SO_PEERCRED and a descriptor of the process); what it says of
 * itself counts for nothing. Bounded in all and for each user. One thread; only `track` and `await`
 * wait, with a deadline. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_LOBBY_H
#define TOWLINE_HOSTS_INSTRUMENTED_LOBBY_H

#include "hosts/instrumented/instrumented.h"

#define TW_LOBBY_PROGRAMS_MAX 1024u
#define TW_LOBBY_USER_MAX     256u /* of one user who is not root */

struct tw_lobby;

/* Everybody may connect to `path`: to be tracked gives a program no rights. */
enum tw_code tw_lobby_open(const char *path, struct tw_lobby **lobby, struct tw_error *err);
void tw_lobby_close(struct tw_lobby *lobby); /* after the program objects; NULL is fine */

int tw_lobby_fd(const struct tw_lobby *lobby); /* for poll: readable when there is work */
/* Does all that can be done at once. */
void tw_lobby_serve(struct tw_lobby *lobby, uint64_t now_ns);

/* Whether the program has come, and is still there. */
bool tw_lobby_knows(const struct tw_lobby *lobby, pid_t pid);

/* `pid` is about to start: serves until it has come, at most until the deadline. It then waits for
 * tw_lobby_track(), and from there on, before its first store, for its first epoch. */
bool tw_lobby_await(struct tw_lobby *lobby, pid_t pid, uint64_t deadline_ns);

/* NOT_FOUND: no such program is known. Else as tw_instrumented_accept(). */
enum tw_code tw_lobby_track(struct tw_lobby *lobby, pid_t pid,
                            const struct tw_instrumented_config *config, uint64_t deadline_ns,
                            struct tw_instrumented **program, struct tw_error *err);
/* A program that was awaited is to go on untracked. */
void tw_lobby_let_go(struct tw_lobby *lobby, pid_t pid);

#endif
