/* The whole controller: store, catalogue, jobs, RPC services, HTTP pages. */
#ifndef TOWLINE_CONTROLLER_CONTROLLER_H
#define TOWLINE_CONTROLLER_CONTROLLER_H

#include "controller/config.h"

struct tw_controller;

enum tw_code tw_controller_open(const struct tw_controller_config *config,
                                struct tw_controller **controller, struct tw_error *err);
const char *tw_controller_url(const struct tw_controller *controller);      /* real port */
const char *tw_controller_http_url(const struct tw_controller *controller); /* "" = none */
/* Reads the certificates again, and says in the log how it went. */
void tw_controller_reload(struct tw_controller *controller);
/* Ends what runs here and changes nothing about migrations: the next start goes on with them.
 * May take as long as the longest call to an agent. */
void tw_controller_close(struct tw_controller *controller);

#endif
