/* A real program with threads, tracked from outside or by its own instrumentation. */
#include "base/clock.h"
#include "client/fixture.h"
#include "hosts/instrumented/instrumented.h"
#include "hosts/process/process.h"
#include "tests/attachments/program.h"
#include "tests/attachments/world.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE (60 * TW_SEC)

enum { EXACT = 1 }; /* variants of the process attachment */

struct own {
    uint64_t region; /* its address in the program */
    pid_t pid;
    int to, from; /* its standard input and output */
    char folder[64], socket[96];
    struct tw_instrumented_server *server;
    struct identity identity; /* through a session: */
    struct tw_device *device;
    towline_session *session;
    bool loads; /* that it tells of */
};

static void fail(const char *what)
{
    fprintf(stderr, "program world: %s: %s\n", what, strerror(errno));
    abort();
}

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[512];
    if (code)
        fail(tw_error_text(err, text, sizeof text));
}

/* ---- The program ----------------------------------------------------------------------------- */

static void hear(const struct own *own, char *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        struct pollfd p = {.fd = own->from, .events = POLLIN};
        if (poll(&p, 1, (int)(PATIENCE / TW_MS)) <= 0)
            fail("no answer in time");
        const ssize_t n = read(own->from, bytes + got, size - got);
        if (n <= 0)
            fail("the program has ended");
        got += (size_t)n;
    }
}

static void order(const struct own *own, const struct program_order *order)
{
    char answer;
    if (write(own->to, order, sizeof *order) != sizeof *order)
        fail("telling the program");
    hear(own, &answer, 1);
}

static void start_program(struct own *own, const char *path)
{
    int in[2], out[2];
    if (pipe(in) || pipe(out))
        fail("pipe");
    own->pid = fork();
    if (own->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close_range(3, ~0u, 0);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    if (own->pid < 0)
        fail("fork");
    close(in[0]);
    close(out[1]);
    own->to = in[1];
    own->from = out[0];
}

static void learn_region(struct world *w)
{
    char text[17] = {0};
    struct own *own = w->own;
    hear(own, text, 16);
    w->region = own->region = strtoull(text, NULL, 16);
}

static struct own *own_new(struct world *w)
{
    struct own *own = calloc(1, sizeof *own);
    if (!own)
        fail("memory");
    w->own = own;
    return own;
}

static void perform(struct world *w, const struct contract_store *store)
{
    const struct own *own = w->own;
    if (store->kind != CONTRACT_OUTSIDE) {
        order(own, &(struct program_order){.verb = PROGRAM_STORE, .store = *store});
        return;
    }
    uint8_t bytes[256];
    for (uint32_t i = 0; i < store->size; i++)
        bytes[i] = (uint8_t)(store->value + i);
    const struct iovec local = {bytes, store->size};
    const struct iovec remote = {(void *)(uintptr_t)(own->region + store->offset), store->size};
    if (process_vm_writev(own->pid, &local, 1, &remote, 1, 0) != (ssize_t)store->size)
        fail("writing into the program");
}

static void read_region(struct world *w, uint8_t copy[CONTRACT_BYTES])
{
    const struct own *own = w->own;
    const struct iovec local = {copy, CONTRACT_BYTES};
    const struct iovec remote = {(void *)(uintptr_t)own->region, CONTRACT_BYTES};
    if (process_vm_readv(own->pid, &local, 1, &remote, 1, 0) != CONTRACT_BYTES)
        fail("reading the program");
}

static void storm(struct world *w, bool begin)
{
    order(w->own, &(struct program_order){.verb = begin ? PROGRAM_STORM : PROGRAM_CALM});
}

static void world_close(struct world *w)
{
    struct own *own = w->own;
    w->attachment.ops->close(w->attachment.ctx);
    close(own->to);
    close(own->from);
    kill(own->pid, SIGKILL);
    waitpid(own->pid, NULL, 0);
    tw_instrumented_server_close(own->server);
    if (own->folder[0] && rmdir(own->folder))
        fail("removing the folder");
    free(own);
}

/* ---- From outside ---------------------------------------------------------------------------- */

static void process_open(struct world *w)
{
    const struct tw_process_config config = {.exact = w->kind->variant == EXACT};
    struct tw_process *process;
    struct tw_error err;
    struct own *own = own_new(w);
    start_program(own, TEST_PROGRAM);
    learn_region(w);
    must(tw_process_attach(&config, own->pid, &process, &err), &err);
    w->attachment = tw_process_attachment(process);
}

#define PROGRAM_WORLD .perform = perform, .read = read_region, .storm = storm, .close = world_close

/* Every store through the page table is seen, whoever makes it. */
#define PROCESS_VERDICTS                                                                           \
    .verdicts = {                                                                                  \
        [CONTRACT_LOAD] = HIDDEN,                                                                  \
    }

const struct world_kind world_process = {
    .name = "process", .open = process_open, PROGRAM_WORLD, .whole_pages = true, PROCESS_VERDICTS};
const struct world_kind world_process_exact = {.name = "process, exact",
                                               .open = process_open,
                                               PROGRAM_WORLD,
                                               .variant = EXACT,
                                               PROCESS_VERDICTS};

/* ---- Instrumented ---------------------------------------------------------------------------- */

static void instrumented_open(struct world *w)
{
    const struct tw_instrumented_config config = {
        .mode = (enum tw_inst_mode)w->kind->variant,
        .loads = true,
        .cache = {.cores = 2, .l1 = {4096, 4}, .last = {65536, 8}},
    };
    struct tw_instrumented *program;
    struct tw_error err;
    struct own *own = own_new(w);
    snprintf(own->folder, sizeof own->folder, "/tmp/towline-contract-XXXXXX");
    if (!mkdtemp(own->folder))
        fail("mkdtemp");
    snprintf(own->socket, sizeof own->socket, "%s/agent.sock", own->folder);
    setenv(TW_INST_SOCKET_ENV, own->socket, 1);
    must(tw_instrumented_listen(own->socket, false, &own->server, &err), &err);
    start_program(own, TEST_INSTRUMENTED);
    must(tw_instrumented_accept(own->server, &config, tw_after(tw_now(&tw_monotonic), PATIENCE),
                                &program, &err),
         &err);
    learn_region(w);
    w->attachment = tw_instrumented_attachment(program);
}

/* What the compiler did not write is not seen; what libc and the kernel do on its behalf is. */
#define INSTRUMENTED_VERDICTS                                                                      \
    .verdicts = {                                                                                  \
        [CONTRACT_NONTEMPORAL] = HIDDEN,                                                           \
        [CONTRACT_ASSEMBLY] = HIDDEN,                                                              \
        [CONTRACT_OUTSIDE] = HIDDEN,                                                               \
        [CONTRACT_LOAD] = HIDDEN,                                                                  \
    }
#define INSTRUMENTED_WORLD(title, how)                                                             \
    {                                                                                              \
        .name = title, .open = instrumented_open, PROGRAM_WORLD, .same_value_is_dirty = true,      \
        .sees_loads = true, .variant = how, INSTRUMENTED_VERDICTS                                  \
    }

const struct world_kind world_mark = INSTRUMENTED_WORLD("instrumented, mark", TW_INST_MARK);
const struct world_kind world_sharing =
    INSTRUMENTED_WORLD("instrumented, sharing", TW_INST_SHARING);
const struct world_kind world_owned = INSTRUMENTED_WORLD("instrumented, owned", TW_INST_OWNED);

/* ---- Through the agent's sessions ------------------------------------------------------------ */

typedef int (*list_fn)(towline_session *session, const char *epoch, struct towline_lines *lines,
                       size_t max, size_t *count, uint64_t *cursor);

/* One of the two lists of an epoch, as messages. */
static void session_list(const struct own *own, list_fn list, uint64_t cursor,
                         enum tw_link_message message)
{
    struct towline_lines lines[7]; /* a small buffer: the cursor has work */
    size_t count;
    do {
        if (list(own->session, NULL, lines, 7, &count, &cursor))
            fail(towline_last_error());
        for (size_t i = 0; i < count; i++) {
            const uint64_t page = (lines[i].address - own->region) / TW_PAGE_SIZE;
            if (page >= CONTRACT_PAGES)
                fail("pages of the region only");
            if (lines[i].flags & TOWLINE_WHOLE)
                tw_device_message_whole(own->device, page);
            else
                tw_device_message_page(own->device, message, page, lines[i].lines);
        }
    } while (cursor);
}

/* What a collect of the session tells becomes the messages to a device of the region alone: the
 * consumers of the contract stand on that one. */
static void session_sync(void *ctx)
{
    const struct own *own = ctx;
    uint64_t cursor;
    if (towline_collect(own->session, NULL, 0, &cursor, NULL))
        fail(towline_last_error());
    session_list(own, towline_dirty, cursor, TW_MEM_WR);
    if (own->loads)
        session_list(own, towline_accessed, cursor, TW_MEM_RD_DATA);
}

static void session_start(struct own *own, uint32_t attachment)
{
    struct towline_options options = {.size = sizeof options,
                                      .socket = fixture_socket,
                                      .pid = own->pid,
                                      .timeout_ms = 60000,
                                      .attachment = attachment,
                                      .accessed = own->loads};
    const struct towline_range region = {own->region, CONTRACT_BYTES};
    struct towline_info info;
    if (towline_open(&options, &own->session) || towline_register(own->session, &region, 1) ||
        towline_start(own->session, NULL) || towline_info(own->session, &info))
        fail(towline_last_error());
    if (info.attachment != attachment)
        fail(info.why);
}

static bool agent_is_there;

static void session_open(struct world *w)
{
    const struct tw_device_config device = {.memory_bytes = CONTRACT_BYTES};
    static const char *const blind_spots[] = {"see the session's", NULL};
    struct tw_error err;
    struct own *own = own_new(w);
    const bool instrumented = w->kind->variant == TOWLINE_INSTRUMENTED;
    own->loads = instrumented;
    if (!agent_is_there) /* one for all of them: its start takes longer than a scenario */
        fixture_open();
    agent_is_there = true;
    setenv(TW_INST_SOCKET_ENV, fixture_instrumented, 1);
    start_program(own, instrumented ? TEST_INSTRUMENTED : TEST_PROGRAM);
    learn_region(w);
    session_start(own, (uint32_t)w->kind->variant);
    must(tw_device_open(&device, &own->device, &err), &err);
    own->identity = (struct identity){.sync = session_sync, .own = own};
    w->attachment = identity_attachment(&own->identity, own->device, blind_spots);
    w->attachment.same_value_is_dirty = instrumented;
    w->attachment.whole_pages = !instrumented;
    w->attachment.sees_loads = own->loads;
    w->region = 0;
}

static void session_close(struct world *w)
{
    struct own *own = w->own;
    towline_close(own->session);
    tw_device_close(own->device);
    world_close(w);
}

static void session_finish(void)
{
    fixture_close();
    agent_is_there = false;
}

const struct world_kind world_session_instrumented = {.name = "session, instrumented",
                                                      .open = session_open,
                                                      .perform = perform,
                                                      .read = read_region,
                                                      .storm = storm,
                                                      .close = session_close,
                                                      .finish = session_finish,
                                                      .same_value_is_dirty = true,
                                                      .sees_loads = true,
                                                      .variant = TOWLINE_INSTRUMENTED,
                                                      INSTRUMENTED_VERDICTS};
const struct world_kind world_session_process = {.name = "session, process",
                                                 .open = session_open,
                                                 .perform = perform,
                                                 .read = read_region,
                                                 .storm = storm,
                                                 .close = session_close,
                                                 .finish = session_finish,
                                                 .whole_pages = true,
                                                 .variant = TOWLINE_PROCESS,
                                                 PROCESS_VERDICTS};
