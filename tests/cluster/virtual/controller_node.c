/* The controller as a node: all of it. Each start opens the same store. */
#include "controller/controller.h"

#include "controller/config.h"
#include "tests/cluster/virtual/world.h"

#include <stdio.h>
#include <string.h>

void *vt_controller_main(void *arg)
{
    struct vt_node *node = arg;
    struct tw_controller_config config;
    struct tw_controller *controller = NULL;
    struct tw_error err = {0};
    tw_controller_config_defaults(&config);
    snprintf(config.listen, sizeof config.listen, "sim://%s", node->name);
    snprintf(config.store, sizeof config.store, "%s/store", vt_world.dir);
    config.http[0] = 0;
    config.insecure = true;
    config.heartbeat_ns = 300 * TW_MS;
    config.lease_ns = TW_SEC;
    if (tw_controller_open(&config, &controller, &err) != TW_OK) {
        vt_say("%s cannot start: %s", node->name, err.what);
        return NULL;
    }
    node->up = true;
    while (!node->dead && !node->stopping)
        vt_wait(node, TW_NEVER);
    node->up = false;
    tw_controller_close(controller);
    return NULL;
}
