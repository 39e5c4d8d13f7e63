/* TrackingService called over RPC, beside local programs and a page of metrics, on a real program:
 * run under the thread sanitizer, where Criterion cannot start. Exit status 0 = passed. */
#include "agentd/tracking.h"
#include "base/clock.h"
#include "base/log.h"
#include "client/towline.h"
#include "rpc/rpc.h"
#include "towline/v1/tracking.pb-c.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVICE (&towline__v1__tracking_service__descriptor)
#define CALL_MS 60000u
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static char folder[64] = "/tmp/towline-tracking-XXXXXX", socket_path[96], instrumented_path[96];
static struct tw_agent_tracking *tracking;
static struct tw_rpc_client *client;
static pid_t subject, instrumented;
static int subject_in, instrumented_in;
static _Atomic bool stop;
static struct tw_error err;

/* ---- Around it ------------------------------------------------------------------------------- */

/* Returns where it listens. */
static int subject_start(const char *path, pid_t *pid)
{
    int to[2];
    char variable[128];
    char *argv[] = {(char *)(uintptr_t)path, NULL}, *environment[] = {variable, NULL};
    posix_spawn_file_actions_t actions;
    snprintf(variable, sizeof variable, "TOWLINE_INSTRUMENTED=%s", instrumented_path);
    CHECK(pipe(to) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addclose(&actions, to[1]);
    CHECK(posix_spawn(pid, path, &actions, NULL, argv, environment) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    return to[1];
}

static void clean(void)
{
    char command[128];
    if (subject)
        kill(subject, SIGKILL);
    if (instrumented)
        kill(instrumented, SIGKILL);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        perror("rm");
}

static enum tw_code call(const char *method, const ProtobufCMessage *request,
                         ProtobufCMessage **response)
{
    *response = NULL;
    return tw_rpc_call(client, SERVICE, method, request, CALL_MS, TW_RPC_ONCE, response, &err);
}

static enum tw_code start(uint64_t pid, uint32_t every_ms, uint64_t *id)
{
    Towline__V1__StartTrackingRequest request = TOWLINE__V1__START_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    request.pid = pid;
    request.every_ms = every_ms;
    enum tw_code code = call("Start", &request.base, &response);
    if (code)
        return code;
    const Towline__V1__TrackingSession *s =
        ((const Towline__V1__StartTrackingResponse *)(const void *)response)->session;
    CHECK(s && s->pid == pid && s->uid == 0 && s->by_operator && !s->exact && !s->ended &&
          s->counts_bytes);
    CHECK(!s->same_value_is_dirty && s->n_blind_spots > 0);
    *id = s->id;
    protobuf_c_message_free_unpacked(response, NULL);
    return TW_OK;
}

static Towline__V1__GetTrackingResponse *get(uint64_t id)
{
    Towline__V1__GetTrackingRequest request = TOWLINE__V1__GET_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    request.id = id;
    return call("Get", &request.base, &response) ? NULL : (void *)response;
}

static enum tw_code end(uint64_t id)
{
    Towline__V1__StopTrackingRequest request = TOWLINE__V1__STOP_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    request.id = id;
    enum tw_code code = call("Stop", &request.base, &response);
    if (response)
        protobuf_c_message_free_unpacked(response, NULL);
    return code;
}

/* How many sessions there are, and how many of them operators started. */
static size_t list(size_t *operated)
{
    Towline__V1__ListTrackingRequest request = TOWLINE__V1__LIST_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    CHECK(call("List", &request.base, &response) == TW_OK);
    const Towline__V1__ListTrackingResponse *r = (const void *)response;
    size_t n = r->n_sessions;
    *operated = 0;
    for (size_t i = 0; i < n; i++)
        *operated += r->sessions[i]->by_operator ? 1 : 0;
    protobuf_c_message_free_unpacked(response, NULL);
    return n;
}

/* ---- Others at the same time ----------------------------------------------------------------- */

static void *reads_metrics(void *arg)
{
    while (!atomic_load(&stop)) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        tw_agent_tracking_metrics(tracking, out);
        fclose(out);
        CHECK(strstr(text, "towline_agent_tracking_sessions"));
        free(text);
        usleep(2000);
    }
    return arg;
}

static void *lists(void *arg)
{
    size_t operated;
    while (!atomic_load(&stop)) {
        list(&operated);
        usleep(2000);
    }
    return arg;
}

/* A local program: sessions that come and go. */
static void *tracks(void *arg)
{
    const struct towline_options options = {
        .size = sizeof options, .socket = socket_path, .pid = subject, .timeout_ms = CALL_MS};
    while (!atomic_load(&stop)) {
        towline_session *s;
        CHECK(towline_open(&options, &s) == TOWLINE_OK);
        if (towline_start(s, "a"))
            fprintf(stderr, "start: %s\n", towline_last_error());
        CHECK(towline_collect(s, "a", 0, NULL, NULL) == TOWLINE_OK);
        towline_close(s);
    }
    return arg;
}

/* Nobody, for the kernel: credentials are the thread's. He sees nothing of the operators' session,
 * and cannot have what it finds. */
static void *is_nobody(void *arg)
{
    struct towline_listed listed[4];
    size_t count = 9;
    if (getuid() != 0)
        return arg;
    CHECK(syscall(SYS_setresuid, -1, 65534, -1) == 0);
    CHECK(towline_list(socket_path, listed, 4, &count) == TOWLINE_OK);
    CHECK(count == 0);
    struct towline_guest guests[1];
    CHECK(towline_guests(socket_path, guests, 1, &count) == TOWLINE_OK && count == 0);
    return arg;
}

/* ---- The test -------------------------------------------------------------------------------- */

static void refusals(void)
{
    uint64_t id;
    CHECK(start(0, 0, &id) == TW_INVALID_ARGUMENT);
    CHECK(start(UINT64_C(1) << 40, 0, &id) == TW_INVALID_ARGUMENT);
    CHECK(start((uint64_t)subject, 9, &id) == TW_INVALID_ARGUMENT);
    CHECK(start(INT32_MAX, 0, &id) == TW_NOT_FOUND);
    CHECK(get(77) == NULL && err.code == TW_NOT_FOUND);
    CHECK(end(77) == TW_OK); /* idempotent */
}

/* Epochs are collected and counted without anybody's asking. */
static void await_lines(uint64_t id)
{
    for (unsigned i = 0;; i++) {
        Towline__V1__GetTrackingResponse *r = get(id);
        CHECK(r && r->session && i < 3000);
        const Towline__V1__TrackingSums *t = r->session->total;
        /* Between two epochs there are no regions for a moment. */
        bool found = t->lines > 0 && t->changed_bytes > 0 && t->epochs > 1 && r->n_hottest > 0;
        CHECK(t->known_lines <= t->lines && t->pages <= t->lines);
        towline__v1__get_tracking_response__free_unpacked(r, NULL);
        if (found)
            return;
        usleep(20000);
    }
}

static void await_ended(uint64_t id)
{
    for (unsigned i = 0;; i++) {
        Towline__V1__GetTrackingResponse *r = get(id);
        CHECK(r && i < 3000);
        bool ended = r->session->ended;
        towline__v1__get_tracking_response__free_unpacked(r, NULL);
        if (ended)
            return;
        usleep(20000);
    }
}

static void local_sessions_are_not_the_operators(void)
{
    const struct towline_options options = {
        .size = sizeof options, .socket = socket_path, .pid = subject, .timeout_ms = CALL_MS};
    towline_session *s;
    struct towline_info info;
    size_t operated;
    CHECK(towline_open(&options, &s) == TOWLINE_OK && towline_start(s, "a") == TOWLINE_OK);
    CHECK(towline_info(s, &info) == TOWLINE_OK);
    CHECK(list(&operated) == 2 && operated == 1);
    CHECK(get(info.session) == NULL && err.code == TW_NOT_FOUND);
    CHECK(end(info.session) == TW_OK && list(&operated) == 2);
    towline_close(s);
}

/* ---- What is asked for ----------------------------------------------------------------------- */

static enum tw_code start_as(uint64_t pid, int attachment, bool sharing, bool accessed,
                             Towline__V1__StartTrackingResponse **out)
{
    Towline__V1__StartTrackingRequest request = TOWLINE__V1__START_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    request.pid = pid;
    request.every_ms = 20;
    request.attachment = (Towline__V1__TrackingAttachment)attachment;
    request.sharing = sharing;
    request.accessed = accessed;
    enum tw_code code = call("Start", &request.base, &response);
    *out = (void *)response;
    return code;
}

/* What the program is not, it is not tracked as. */
static void wishes_are_refused(void)
{
    const uint64_t pid = (uint64_t)subject;
    size_t operated;
    Towline__V1__StartTrackingResponse *r;
    CHECK(start_as(pid, 9, false, false, &r) == TW_INVALID_ARGUMENT);
    CHECK(start_as(pid, 2, false, false, &r) == TW_FAILED_PRECONDITION);
    CHECK(start_as(pid, 0, true, false, &r) == TW_FAILED_PRECONDITION);
    CHECK(start_as(pid, 0, false, true, &r) == TW_FAILED_PRECONDITION);
    CHECK(start_as(pid, 1, true, false, &r) == TW_INVALID_ARGUMENT);
    CHECK(start_as(pid, 1, false, true, &r) == TW_UNIMPLEMENTED);
    CHECK(list(&operated) == 0);
}

/* Two threads store to the two halves of a line, and to another line both; a third line is loaded.
 */
static bool shows_all(uint64_t id)
{
    static const char orders[] = "t\nl 5\nl 70\n";
    bool falsely = false, really = false;
    CHECK(write(instrumented_in, orders, sizeof orders - 1) == sizeof orders - 1);
    Towline__V1__GetTrackingResponse *r = get(id);
    CHECK(r && r->n_shared <= 64);
    for (size_t i = 0; i < r->n_shared; i++) {
        const Towline__V1__TrackingSharedLine *line = r->shared[i];
        CHECK(line->address % 64 == 0 && line->n_threads <= 8);
        falsely |= line->falsely && line->n_threads == 2 && line->threads[0]->pc &&
                   (line->threads[0]->bytes & line->threads[1]->bytes) == 0;
        really |= !line->falsely;
    }
    const Towline__V1__TrackingSums *t = r->session->total;
    const bool all = falsely && really && r->session->shared_falsely > 0 &&
                     t->accessed_lines > t->lines && t->accessed_pages > 0;
    towline__v1__get_tracking_response__free_unpacked(r, NULL);
    return all;
}

/* Metrics have a sample of what is known of a session, and none of what is not. */
static void expect_metrics(uint64_t id, bool instrumented_bytes)
{
    static const char *const names[] = {"lines_total", "changed_bytes_total", "same_lines_total",
                                        "accessed_lines_total", "clean_pages_total"};
    const bool known[] = {true, true, instrumented_bytes, false, !instrumented_bytes};
    char *text = NULL, sample[96];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    tw_agent_tracking_metrics(tracking, out);
    fclose(out);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(sample, sizeof sample, "\ntowline_agent_tracking_%s{session=\"%llu\"", names[i],
                 (unsigned long long)id);
        CHECK((strstr(text, sample) != NULL) == known[i]);
    }
    free(text);
}

static void bytes_are_counted_where_asked_for(void)
{
    Towline__V1__StartTrackingRequest request = TOWLINE__V1__START_TRACKING_REQUEST__INIT;
    ProtobufCMessage *response;
    request.pid = (uint64_t)instrumented;
    request.every_ms = 20;
    request.bytes = true;
    CHECK(call("Start", &request.base, &response) == TW_OK);
    Towline__V1__StartTrackingResponse *r = (void *)response;
    const uint64_t id = r->session->id;
    CHECK(r->session->counts_bytes && r->session->same_value_is_dirty);
    towline__v1__start_tracking_response__free_unpacked(r, NULL);
    bool same = false;
    for (unsigned i = 0; !same; i++) {
        CHECK(i < 3000 && write(instrumented_in, "w 5\n", 4) == 4);
        usleep(20000);
        Towline__V1__GetTrackingResponse *got = get(id);
        CHECK(got && got->session->total->same_lines <= got->session->total->known_lines);
        same = got->session->total->same_lines > 0;
        towline__v1__get_tracking_response__free_unpacked(got, NULL);
    }
    expect_metrics(id, true);
    CHECK(end(id) == TW_OK);
}

static void wishes_are_granted(void)
{
    Towline__V1__StartTrackingResponse *r;
    instrumented_in = subject_start(TEST_INSTRUMENTED, &instrumented);
    CHECK(start_as((uint64_t)instrumented, 2, true, true, &r) == TW_OK);
    const Towline__V1__TrackingSession *s = r->session;
    const uint64_t id = s->id;
    CHECK(s->attachment == TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_INSTRUMENTED);
    CHECK(s->sharing && s->accessed && s->same_value_is_dirty && !s->counts_bytes);
    CHECK(strstr(s->why, "asked for"));
    towline__v1__start_tracking_response__free_unpacked(r, NULL);
    for (unsigned i = 0; !shows_all(id); i++) {
        CHECK(i < 3000);
        usleep(20000);
    }
    CHECK(end(id) == TW_OK);
    bytes_are_counted_where_asked_for();
    /* From outside, at will, and without the price. */
    CHECK(start_as((uint64_t)instrumented, 1, false, false, &r) == TW_OK);
    CHECK(r->session->attachment == TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_PROCESS);
    CHECK(!r->session->sharing && !r->session->accessed);
    expect_metrics(r->session->id, false);
    CHECK(end(r->session->id) == TW_OK);
    towline__v1__start_tracking_response__free_unpacked(r, NULL);
    kill(instrumented, SIGKILL);
    CHECK(waitpid(instrumented, NULL, 0) == instrumented);
    instrumented = 0;
}

static void run(void)
{
    static void *(*const others[])(void *) = {reads_metrics, lists, tracks, tracks};
    pthread_t threads[4], nobody;
    uint64_t id;
    size_t operated;
    refusals();
    wishes_are_refused();
    wishes_are_granted();
    CHECK(start((uint64_t)subject, 20, &id) == TW_OK);
    CHECK(write(subject_in, "h\n", 2) == 2);
    pthread_create(&nobody, NULL, is_nobody, NULL);
    pthread_join(nobody, NULL);
    local_sessions_are_not_the_operators();
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, others[i], NULL);
    await_lines(id);
    usleep(500000);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(list(&operated) == 1 && operated == 1);
    CHECK(end(id) == TW_OK && end(id) == TW_OK);
    CHECK(list(&operated) == 0);
    CHECK(waitpid(subject, NULL, WNOHANG) == 0); /* it runs on */
    CHECK(start((uint64_t)subject, 20, &id) == TW_OK);
    kill(subject, SIGKILL);
    await_ended(id);
    CHECK(end(id) == TW_OK);
    CHECK(waitpid(subject, NULL, 0) == subject);
}

int main(void)
{
    struct tw_rpc_server *server;
    char url[96];
    tw_log_configure("test", TW_LOG_OFF);
    CHECK(mkdtemp(folder) && chmod(folder, 0755) == 0);
    snprintf(socket_path, sizeof socket_path, "%s/agent.sock", folder);
    snprintf(url, sizeof url, "ipc://%s/rpc.sock", folder);
    snprintf(instrumented_path, sizeof instrumented_path, "%s/instrumented.sock", folder);
    atexit(clean);
    subject_in = subject_start(TEST_SUBJECT, &subject);
    const struct tw_agent_tracking_config config = {.socket = socket_path,
                                                    .instrumented = instrumented_path};
    const struct tw_rpc_server_config serve = {.url = url};
    const struct tw_rpc_client_config ask = {.url = url};
    CHECK(tw_agent_tracking_open(&config, &tracking, &err) == TW_OK);
    CHECK(tw_rpc_server_open(&serve, &server, &err) == TW_OK);
    CHECK(tw_agent_tracking_serve(tracking, server, &err) == TW_OK);
    CHECK(tw_rpc_server_start(server, &err) == TW_OK);
    CHECK(tw_rpc_client_open(&ask, &client, &err) == TW_OK);
    run();
    tw_rpc_client_close(client);
    tw_rpc_server_close(server);
    tw_agent_tracking_close(tracking);
    return 0;
}
