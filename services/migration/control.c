#include "services/migration/control.h"

#include "services/migration/migration.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STREAM "migration stream"

static const struct {
    const char *name;
    uint32_t size;
    enum tw_lane lane;
} kinds[] = {
    [TW_CONTROL_BEGIN] = {"begin", sizeof(struct tw_control_begin), TW_LANE_BULK},
    [TW_CONTROL_ROUND_END] = {"round_end", sizeof(struct tw_control_round_end), TW_LANE_BULK},
    [TW_CONTROL_FINAL_END] = {"final_end", sizeof(struct tw_control_final_end), TW_LANE_BULK},
    [TW_CONTROL_STATE_END] = {"state_end", sizeof(struct tw_control_state_end), TW_LANE_BULK},
    [TW_CONTROL_PREPARED] = {"prepared", sizeof(struct tw_control_prepared), TW_LANE_URGENT},
    [TW_CONTROL_COMMIT] = {"commit", sizeof(struct tw_control_epoch), TW_LANE_URGENT},
    [TW_CONTROL_RUNNING] = {"running", sizeof(struct tw_control_epoch), TW_LANE_URGENT},
    [TW_CONTROL_ABORT] = {"abort", sizeof(struct tw_control_abort), TW_LANE_URGENT},
    [TW_CONTROL_MAP_END] = {"map_end", sizeof(struct tw_control_map_end), TW_LANE_BULK},
    [TW_CONTROL_ROOM] = {"room", sizeof(struct tw_control_epoch), TW_LANE_URGENT},
    [TW_CONTROL_WANT] = {"want", sizeof(struct tw_control_want), TW_LANE_URGENT},
    [TW_CONTROL_WHOLE] = {"whole", sizeof(struct tw_control_whole), TW_LANE_URGENT},
    [TW_CONTROL_MISSING] = {"missing", sizeof(struct tw_control_missing), TW_LANE_BULK},
    [TW_CONTROL_KEEP_END] = {"keep_end", sizeof(struct tw_control_keep_end), TW_LANE_BULK},
    [TW_CONTROL_KEPT] = {"kept", sizeof(struct tw_control_epoch), TW_LANE_URGENT},
    [TW_CONTROL_RELEASE] = {"release", sizeof(struct tw_control_epoch), TW_LANE_URGENT},
};
#define KIND_COUNT (sizeof kinds / sizeof *kinds)

const char *tw_control_name(uint32_t kind)
{
    return kind < KIND_COUNT && kinds[kind].name ? kinds[kind].name : "unknown";
}

uint32_t tw_control_size(uint32_t kind)
{
    return kind < KIND_COUNT ? kinds[kind].size : 0;
}

static bool reserved_is_zero(uint32_t kind, const union tw_control *m)
{
    switch (kind) {
    case TW_CONTROL_BEGIN:
        return m->begin.verify <= 1 && m->begin.method <= TW_METHOD_HYBRID;
    case TW_CONTROL_ROUND_END:
        return m->round_end.final <= 1;
    case TW_CONTROL_FINAL_END:
        return m->final_end.reserved == 0 && m->final_end.verify <= 1;
    case TW_CONTROL_PREPARED:
        return m->prepared.reserved == 0 && m->prepared.compared <= 1;
    case TW_CONTROL_MAP_END:
        return m->map_end.reserved == 0 && m->map_end.final <= 1;
    case TW_CONTROL_WANT:
        return m->want.reserved == 0 && m->want.critical < TW_LINES_PER_PAGE && m->want.lines;
    case TW_CONTROL_MISSING:
        return m->missing.reserved == 0 && m->missing.known <= 1 &&
               m->missing.lines <= m->missing.to_come;
    case TW_CONTROL_ABORT:
        return m->abort.compared <= 1;
    default:
        return true;
    }
}

enum tw_code tw_control_decode(const struct tw_chunk_header *header, enum tw_lane lane,
                               const uint8_t *payload, union tw_control *out, struct tw_error *err)
{
    uint32_t size = tw_control_size(header->tag);
    char expected[32], given[32];
    if (!size) {
        snprintf(given, sizeof given, "%" PRIu32, header->tag);
        return tw_fail(err, TW_INVALID_ARGUMENT, STREAM, "1..16", given, "unknown control message");
    }
    if (header->length != size) {
        snprintf(expected, sizeof expected, "%" PRIu32 " bytes", size);
        snprintf(given, sizeof given, "%" PRIu32 " bytes", header->length);
        return tw_fail(err, TW_INVALID_ARGUMENT, STREAM, expected, given,
                       "control message %s has a wrong size", tw_control_name(header->tag));
    }
    if (lane != kinds[header->tag].lane)
        return tw_fail(err, TW_INVALID_ARGUMENT, STREAM, NULL, NULL,
                       "control message %s came by the wrong lane", tw_control_name(header->tag));
    memset(out, 0, sizeof *out);
    memcpy(out, payload, size);
    if (!reserved_is_zero(header->tag, out))
        return tw_fail(err, TW_INVALID_ARGUMENT, STREAM, NULL, NULL,
                       "control message %s has values that this version does not know",
                       tw_control_name(header->tag));
    return TW_OK;
}

enum tw_code tw_control_send(struct tw_conn *conn, enum tw_control_kind kind,
                             const union tw_control *message, struct tw_error *err)
{
    return tw_conn_send(conn, kinds[kind].lane, TW_CHUNK_CONTROL, kind, 0, message,
                        kinds[kind].size, err);
}

static void put_text(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size - 1);
    memset(to, 0, size);
    memcpy(to, from, n);
}

static void take_text(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size - 1);
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] >= ' ' && from[i] < 0x7f ? from[i] : '?';
    to[n] = '\0';
}

void tw_control_abort_pack(struct tw_control_abort *out, const struct tw_error *why, bool compared)
{
    static_assert(sizeof out->where == sizeof why->where && sizeof out->what == sizeof why->what,
                  "an error fits its message");
    static_assert(sizeof out->expected == sizeof why->expected &&
                      sizeof out->given == sizeof why->given,
                  "an error fits its message");
    out->code = (uint32_t)why->code;
    out->compared = compared;
    put_text(out->where, sizeof out->where, why->where);
    put_text(out->what, sizeof out->what, why->what);
    put_text(out->expected, sizeof out->expected, why->expected);
    put_text(out->given, sizeof out->given, why->given);
}

void tw_control_abort_unpack(const struct tw_control_abort *in, struct tw_error *why)
{
    bool known = in->code != TW_OK && in->code <= TW_UNAUTHENTICATED;
    why->code = known ? (enum tw_code)in->code : TW_UNKNOWN;
    take_text(why->where, sizeof why->where, in->where);
    take_text(why->what, sizeof why->what, in->what);
    take_text(why->expected, sizeof why->expected, in->expected);
    take_text(why->given, sizeof why->given, in->given);
}
