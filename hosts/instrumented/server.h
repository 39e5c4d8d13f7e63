/* Inside the attachment: one side of the handshake, a message a function. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_SERVER_H
#define TOWLINE_HOSTS_INSTRUMENTED_SERVER_H

#include "hosts/instrumented/instrumented.h"

enum tw_code tw_inst_take_connection(struct tw_instrumented_server *server, uint64_t deadline_ns,
                                     int *fd, struct tw_error *err);
/* `pid` as we see it, by the kernel's word. */
enum tw_code tw_inst_receive_hello(int fd, uint64_t deadline_ns, struct tw_inst_hello *hello,
                                   pid_t *pid, struct tw_error *err);
enum tw_code tw_inst_send_welcome(int fd, int file, enum tw_inst_mode mode, struct tw_error *err);
enum tw_code tw_inst_receive_ready(int fd, uint64_t deadline_ns, struct tw_error *err);

#endif
