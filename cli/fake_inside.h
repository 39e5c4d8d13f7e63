/* Inside the files of the tests' controller. */
#ifndef TOWLINE_CLI_FAKE_INSIDE_H
#define TOWLINE_CLI_FAKE_INSIDE_H

#include "cli/fake_controller.h"

#include <stdlib.h>

/* Every handler: ctx is the fake, the lock is held. */
#define HANDLER(name)                                                                              \
    static enum tw_code name(void *ctx, const struct tw_rpc_call *call,                            \
                             const ProtobufCMessage *request, ProtobufCMessage *response,          \
                             struct tw_error *err)
#define UNUSED(...) use_nothing((const void *[]){__VA_ARGS__})

static inline void use_nothing(const void *const *pointers)
{
    (void)pointers;
}

static inline void *made(size_t size, void (*init)(void *))
{
    void *message = malloc(size);
    init(message);
    return message;
}

#define NEW(type, prefix) ((type *)made(sizeof(type), (void (*)(void *))prefix##__init))

extern const struct tw_rpc_method fake_migrations[];
extern const size_t fake_migration_count;

void fake_copy(char *to, size_t size, const char *from);
/* NOT_FOUND for all VMs but web-1. */
enum tw_code fake_vm_find(const char *name, struct tw_error *err);

#endif
