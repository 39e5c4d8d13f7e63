/* A VmService for tests that does what the name in the request says:
 *   Get "fail:N"    fails with code N and full details
 *   Get "bare:N"    fails with code N and no details
 *   Get "sleep:MS"  answers after MS milliseconds
 *   Get "hold"      answers when the test has set let_go
 *   Get "large:N"   answers with a command line of N characters
 *   Get other       answers with that name and the call's id as reason
 *   Create          echoes the specification
 *   Stop            as Get */
#ifndef TOWLINE_RPC_TEST_SERVICE_H
#define TOWLINE_RPC_TEST_SERVICE_H

#include "rpc/rpc.h"

#include "towline/v1/vm.pb-c.h"

#include <stdatomic.h>

struct test_service {
    _Atomic unsigned calls;   /* handlers begun */
    _Atomic unsigned running; /* handlers begun and not ended */
    _Atomic unsigned running_max;
    _Atomic bool let_go;
};

#define VM_SERVICE (&towline__v1__vm_service__descriptor)

/* Opens, adds and starts; aborts the program on failure. */
struct tw_rpc_server *test_server(const struct tw_rpc_server_config *config,
                                  struct test_service *service);
struct tw_rpc_client *test_client(const char *url);

/* VmService/Get: the answer's code; *reason (may be NULL) is malloc'ed. */
enum tw_code test_get(struct tw_rpc_client *client, const char *name, unsigned timeout_ms,
                      enum tw_rpc_flags flags, char **reason, struct tw_error *err);

void test_sleep_ms(unsigned ms);

/* For the char pointers of messages that are only read. */
static inline char *test_text(const char *text)
{
    return (char *)(uintptr_t)text;
}

#endif
