/* Arbitrary bytes as the stream of a peer, three ways, chosen by the first byte:
 *   the parser alone, which must stay inside the bytes and make headway;
 *   frames with right checksums but arbitrary fields, into a connection that is up or halfway up;
 *   an address as text. */
#include "fabric/backend.h"
#include "fabric/sim.h"
#include "fabric/tcp.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tw_conn *server_conn;
static uint8_t region[8192];

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    (void)conn_ctx;
    (void)ctx;
    if (strnlen(hello->name, sizeof hello->name) == sizeof hello->name)
        abort();
    (void)err;
    server_conn = conn;
    return TW_OK;
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    (void)ctx;
    tw_conn_send(conn, TW_LANE_URGENT, TW_CHUNK_CONTROL, 1, 0, "hello", 5, NULL);
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    (void)ctx;
    (void)err;
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < header->length; i++)
        sum = (uint8_t)(sum + payload[i]);
    if (header->tag == 1) {
        tw_conn_close(conn);
        server_conn = conn == server_conn ? NULL : server_conn;
    } else if (header->tag == 2)
        tw_conn_send(conn, lane, TW_CHUNK_BLOB, 0, 0, payload, header->length, NULL);
    return header->tag == 3 ? TW_INTERNAL : TW_OK;
}

static void on_read(void *ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code)
{
    (void)ctx;
    (void)conn;
    (void)cookie;
    (void)code;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    (void)ctx;
    if (why->code == TW_OK)
        abort();
    if (conn == server_conn)
        server_conn = NULL;
}

static const struct tw_fabric_events events = {on_accept, on_up, on_chunk, on_read, on_down};

/* ---- The parser ------------------------------------------------------------------------------ */

static void parse(const uint8_t *data, size_t size)
{
    struct tw_frame frame;
    struct tw_error err;
    while (tw_frame_parse(data, size, &frame, &err) == TW_OK) {
        if (frame.size < TW_FRAME_HEADER || frame.size > size ||
            frame.payload + frame.length != data + frame.size)
            abort();
        data += frame.size;
        size -= frame.size;
    }
}

/* ---- A connection ---------------------------------------------------------------------------- */

/* A frame of the fuzzer's choice: it may be wrong in every field, but not by chance. */
static size_t next_frame(const uint8_t *data, size_t size, const struct tw_conn *conn,
                         struct tw_frame *frame, uint8_t *payload)
{
    uint8_t choice[8] = {0};
    const size_t take = size < sizeof choice ? size : sizeof choice;
    memcpy(choice, data, take);
    frame->length = size - take < choice[1] ? (uint32_t)(size - take) : choice[1];
    if (frame->length)
        memcpy(payload, data + take, frame->length);
    frame->kind = (enum tw_frame_kind)(choice[0] % TW_FRAME_KINDS);
    frame->payload = payload;
    frame->size = TW_FRAME_HEADER + frame->length;
    if (frame->kind == TW_FRAME_HELLO || frame->kind == TW_FRAME_ACCEPT) {
        memset(payload + frame->length, 0, TW_HELLO_BYTES);
        frame->length = TW_HELLO_BYTES;
        frame->size = TW_FRAME_HEADER + TW_HELLO_BYTES;
    }
    frame->header = (struct tw_frame_header){.kind = (uint16_t)frame->kind,
                                             .length = frame->length,
                                             .numbers = {choice[2], choice[3], choice[4]}};
    frame->header.numbers[3] = choice[5] == 255 ? UINT64_MAX : choice[5];
    if (conn)
        memcpy(frame->header.id, conn->id, sizeof frame->header.id);
    frame->chunk = (struct tw_chunk_header){.kind = TW_CHUNK_BLOB,
                                            .length = frame->length,
                                            .sequence = choice[2],
                                            .tag = choice[3],
                                            .epoch = choice[4] & 1};
    tw_chunk_seal(&frame->chunk, payload);
    return take + (frame->length < size - take ? frame->length : size - take);
}

static void turn(struct tw_sim *sim, struct tw_fabric *a, struct tw_fabric *b, unsigned turns)
{
    while (turns--) {
        tw_sim_advance(sim, TW_MS);
        tw_fabric_poll(a, 0);
        tw_fabric_poll(b, 0);
    }
}

static void converse(const uint8_t *data, size_t size, unsigned turns)
{
    static uint8_t payload[1024];
    struct tw_sim *sim = tw_sim_open(&(struct tw_sim_config){.seed = 1});
    struct tw_fabric_config config = {.name = "a", .events = &events, .bulk_credits = 2};
    struct tw_fabric *a, *b;
    struct tw_conn *conn;
    const struct tw_hello hello = {0};
    uint32_t key;
    if (!sim || tw_fabric_open(&tw_fabric_sim, sim, &config, &a, NULL) ||
        tw_fabric_listen(a, "here", NULL))
        abort();
    config.name = "b";
    if (tw_fabric_open(&tw_fabric_sim, sim, &config, &b, NULL) ||
        tw_fabric_register(a, region, sizeof region, hello.owner, &key, NULL) ||
        tw_fabric_connect(b, "here", &hello, TW_NEVER, NULL, &conn, NULL))
        abort();
    turn(sim, a, b, turns);
    for (unsigned n = 0; size && n < 64; n++) {
        struct tw_frame frame;
        const enum tw_lane lane = data[0] & 0x80 ? TW_LANE_BULK : TW_LANE_URGENT;
        const size_t taken = next_frame(data, size, server_conn, &frame, payload);
        data += taken;
        size -= taken;
        a->polling = true; /* frames come in inside of poll only */
        if (server_conn)
            tw_conn_frame_in(server_conn, lane, &frame);
        else if (frame.kind == TW_FRAME_HELLO && frame.header.numbers[3] == UINT64_MAX)
            tw_conn_incoming(a, &frame, "stranger", &(struct tw_error){0});
        a->polling = false;
        turn(sim, a, b, 1);
    }
    server_conn = NULL;
    tw_fabric_close(a);
    tw_fabric_close(b);
    tw_sim_close(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const uint8_t way = *data++;
    size--;
    if (way % 4 == 0) {
        parse(data, size);
    } else if (way % 4 == 1) {
        union tcp_address address;
        char text[128] = {0};
        memcpy(text, data, size < sizeof text - 1 ? size : sizeof text - 1);
        if (tcp_address_parse(text, &address, NULL) == TW_OK)
            tcp_address_format(&address, text);
    } else {
        converse(data, size, way % 16); /* few turns: the connection is not up yet */
    }
    return 0;
}
