/* Inside the attachment: one side of the handshake, a message a function. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_SERVER_H
#define TOWLINE_HOSTS_INSTRUMENTED_SERVER_H

#include "hosts/instrumented/instrumented.h"

int tw_inst_accept_now(struct tw_instrumented_server *server); /* -1: there is none */
enum tw_code tw_inst_take_connection(struct tw_instrumented_server *server, uint64_t deadline_ns,
                                     int *fd, struct tw_error *err);
struct tw_inst_peer {
    pid_t pid; /* as we see it, by the kernel's word */
    uid_t uid;
    int pidfd; /* the caller's to close */
};
enum tw_code tw_inst_peer(int fd, struct tw_inst_peer *peer, struct tw_error *err);

enum tw_code tw_inst_hello_check(const void *bytes, size_t size, struct tw_inst_hello *hello,
                                 struct tw_error *err);
enum tw_code tw_inst_receive_hello(int fd, uint64_t deadline_ns, struct tw_inst_hello *hello,
                                   struct tw_error *err);
/* `file` -1: none. Does not wait: a program that takes nothing is refused. */
enum tw_code tw_inst_send_order(int fd, enum tw_inst_mode mode, uint32_t flags, int file,
                                struct tw_error *err);
enum tw_code tw_inst_receive_ready(int fd, uint64_t deadline_ns, struct tw_error *err);

/* instrumented.c: tracks the program at the other end of `connection`, which has said hello. Waits
 * until its stores are announced. `hold`: it is at its start, and goes on when the first epoch
 * begins. The program object has descriptors of its own. */
enum tw_code tw_inst_engage(int connection, const struct tw_inst_peer *peer, bool same_pids,
                            bool hold, const struct tw_instrumented_config *config,
                            uint64_t deadline_ns, struct tw_instrumented **out,
                            struct tw_error *err);

#endif
