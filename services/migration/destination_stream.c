#include "services/migration/destination.h"

#include "services/migration/line_hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum tw_code tw_destination_out_of_place(const struct tw_destination *d, const char *what,
                                         struct tw_error *err)
{
    char where[TW_WHERE_SIZE];
    return tw_fail(err, TW_INVALID_ARGUMENT, tw_migration_where(&d->params, where), NULL,
                   tw_machine_state_name(&d->machine), "the source sent %s out of place", what);
}

enum tw_code tw_destination_refuse(struct tw_destination *d, const struct tw_error *why)
{
    d->refused = true;
    d->trouble = *why;
    return TW_OK;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static enum tw_code take_begin(struct tw_destination *d, const struct tw_control_begin *m,
                               struct tw_error *err)
{
    char where[TW_WHERE_SIZE], expected[32], given[32];
    if (d->begun)
        return tw_destination_out_of_place(d, "begin", err);
    if (m->memory_bytes != d->host->memory_bytes || m->epoch != d->params.epoch) {
        bool memory = m->memory_bytes != d->host->memory_bytes;
        uint64_t want = memory ? d->host->memory_bytes : d->params.epoch;
        snprintf(expected, sizeof expected, "%" PRIu64, want);
        snprintf(given, sizeof given, "%" PRIu64, memory ? m->memory_bytes : m->epoch);
        return tw_fail(err, TW_INVALID_ARGUMENT, tw_migration_where(&d->params, where), expected,
                       given, "another %s than prepared for", memory ? "memory size" : "epoch");
    }
    if (m->method != TW_METHOD_PRE_COPY && !d->host->faults)
        return tw_fail(err, TW_FAILED_PRECONDITION, tw_migration_where(&d->params, where),
                       "a host whose guests can wait for memory", NULL,
                       "vm %s cannot run here before its memory is there", d->params.vm);
    d->begin = *m;
    d->begun = true;
    return TW_OK;
}

static enum tw_code take_lines(struct tw_destination *d, const struct tw_chunk_header *header,
                               const uint8_t *payload, struct tw_error *err)
{
    if (!d->begun || d->lines_complete || d->missing.mapped)
        return tw_destination_out_of_place(d, "lines", err);
    enum tw_code code = tw_received_apply(&d->received, header, payload, err);
    if (code != TW_OK)
        return tw_received_is_own_fault(code) ? tw_destination_refuse(d, err) : code;
    tw_meter_sent(&d->meter, sizeof *header + header->length, tw_now(d->env.clock));
    return TW_OK;
}

static enum tw_code take_round_end(struct tw_destination *d, const struct tw_control_round_end *m,
                                   struct tw_error *err)
{
    if (!d->begun || d->lines_complete)
        return tw_destination_out_of_place(d, "round_end", err);
    tw_meter_round_begin(&d->meter, m->index, m->final, tw_now(d->env.clock));
    struct tw_round *r = tw_meter_round(&d->meter);
    r->lines += m->lines;
    r->pages += m->pages;
    r->zero_lines += m->zero_lines;
    r->bytes += m->bytes;
    r->duration_ns += m->duration_ns;
    if (m->index == 0)
        d->meter.p.full_copy_bytes_done = d->host->memory_bytes;
    return TW_OK;
}

static enum tw_code take_final_end(struct tw_destination *d, const struct tw_control_final_end *m,
                                   struct tw_error *err)
{
    const struct tw_control_totals *t = &d->received.totals;
    char where[TW_WHERE_SIZE], expected[96], given[96];
    bool mapped = d->missing.mapped == tw_destination_postcopies(d);
    if (!d->begun || d->lines_complete || m->verify != d->begin.verify || !mapped)
        return tw_destination_out_of_place(d, "final_end", err);
    d->final = *m;
    d->lines_complete = true;
    if (memcmp(t, &m->totals, sizeof *t) == 0)
        return TW_OK;
    static const char counts[] =
        "%" PRIu64 " lines, %" PRIu64 " zero lines, %" PRIu64 " zero pages";
    snprintf(expected, sizeof expected, counts, m->totals.lines, m->totals.zero_lines,
             m->totals.zero_pages);
    snprintf(given, sizeof given, counts, t->lines, t->zero_lines, t->zero_pages);
    struct tw_error why;
    tw_fail(&why, TW_DATA_LOSS, tw_migration_where(&d->params, where), expected, given,
            "not everything that was sent has arrived");
    return tw_destination_refuse(d, &why);
}

/* ---- Device state ---------------------------------------------------------------------------- */

static enum tw_code take_blob(struct tw_destination *d, const struct tw_chunk_header *header,
                              const uint8_t *payload, struct tw_error *err)
{
    struct tw_host_state *state = &d->device_state;
    if (header->tag == TW_BLOB_MAP)
        return tw_destination_take_map(d, header, payload, err);
    if (!d->lines_complete || d->state_complete)
        return tw_destination_out_of_place(d, "device state", err);
    if (header->length > TW_HOST_STATE_MAX - state->size)
        return tw_destination_out_of_place(d, "more device state than 64 MiB", err);
    if (state->size + header->length > d->state_room) {
        size_t room = 2 * d->state_room + TW_CHUNK_PAYLOAD;
        uint8_t *data = realloc(state->data, room);
        struct tw_error why;
        if (!data) {
            tw_fail(&why, TW_RESOURCE_EXHAUSTED, d->params.id, NULL, NULL, "no memory");
            return tw_destination_refuse(d, &why);
        }
        state->data = data;
        d->state_room = room;
    }
    memcpy(state->data + state->size, payload, header->length);
    state->size += header->length;
    d->meter.p.bytes_device_state += sizeof *header + header->length;
    return TW_OK;
}

static enum tw_code take_state_end(struct tw_destination *d, const struct tw_control_state_end *m,
                                   struct tw_error *err)
{
    char where[TW_WHERE_SIZE], expected[32], given[32];
    const struct tw_host_state *state = &d->device_state;
    if (!d->lines_complete || d->state_complete || state->size == 0)
        return tw_destination_out_of_place(d, "state_end", err);
    d->state_complete = true;
    if (m->size == state->size && m->hash == tw_bytes_hash(state->data, state->size))
        return TW_OK;
    snprintf(expected, sizeof expected, "%" PRIu64 " bytes", m->size);
    snprintf(given, sizeof given, "%zu bytes", state->size);
    struct tw_error why;
    tw_fail(&why, TW_DATA_LOSS, tw_migration_where(&d->params, where), expected, given,
            "the device state did not arrive as it was saved");
    return tw_destination_refuse(d, &why);
}

/* ---- Dispatch -------------------------------------------------------------------------------- */

static enum tw_code take_commit(struct tw_destination *d, const struct tw_control_epoch *m,
                                struct tw_error *err)
{
    bool prepared = d->machine.state == TW_DESTINATION_PREPARED && d->prepared_said;
    if (!prepared || m->epoch != d->params.epoch)
        return tw_destination_out_of_place(d, "commit", err);
    d->commit_asked = true;
    return TW_OK;
}

/* After its commit the source may not abort any more. */
static enum tw_code take_abort(struct tw_destination *d, const struct tw_control_abort *m,
                               struct tw_error *err)
{
    if (d->commit_asked)
        return tw_destination_out_of_place(d, "abort", err);
    d->peer_aborted = true;
    tw_control_abort_unpack(m, &d->trouble);
    return TW_OK;
}

static enum tw_code take_control(struct tw_destination *d, enum tw_lane lane,
                                 const struct tw_chunk_header *header, const uint8_t *payload,
                                 struct tw_error *err)
{
    union tw_control m;
    enum tw_code code = tw_control_decode(header, lane, payload, &m, err);
    if (code != TW_OK)
        return code;
    bool receiving = d->machine.state == TW_DESTINATION_RECEIVING;
    switch (header->tag) {
    case TW_CONTROL_BEGIN:
        return receiving ? take_begin(d, &m.begin, err)
                         : tw_destination_out_of_place(d, "begin", err);
    case TW_CONTROL_ROUND_END:
        return take_round_end(d, &m.round_end, err);
    case TW_CONTROL_FINAL_END:
        return take_final_end(d, &m.final_end, err);
    case TW_CONTROL_STATE_END:
        return take_state_end(d, &m.state_end, err);
    case TW_CONTROL_COMMIT:
        return take_commit(d, &m.epoch, err);
    case TW_CONTROL_MAP_END:
        return tw_destination_take_map_end(d, &m.map_end, err);
    case TW_CONTROL_ABORT:
        return take_abort(d, &m.abort, err);
    default:
        return tw_destination_out_of_place(d, tw_control_name(header->tag), err);
    }
}

static bool is_over(const struct tw_destination *d)
{
    unsigned last = d->missing.mapped ? TW_DESTINATION_PAUSED : TW_DESTINATION_PREPARED;
    return d->refused || d->peer_aborted || d->machine.state > last;
}

enum tw_code tw_destination_on_chunk(void *side, enum tw_lane lane,
                                     const struct tw_chunk_header *header, const uint8_t *payload,
                                     struct tw_error *err)
{
    struct tw_destination *d = side;
    enum tw_code code;
    if (is_over(d))
        return TW_OK; /* the end has come already; the rest of the stream does not matter */
    d->chunks++;
    if (header->kind == TW_CHUNK_CONTROL)
        code = take_control(d, lane, header, payload, err);
    else if (header->kind == TW_CHUNK_LINES && d->missing.mapped)
        code = tw_destination_take_rest(d, header, payload, err);
    else if (lane != TW_LANE_BULK || d->machine.state != TW_DESTINATION_RECEIVING)
        code = tw_destination_out_of_place(d, "data", err);
    else if (header->kind == TW_CHUNK_LINES)
        code = take_lines(d, header, payload, err);
    else
        code = take_blob(d, header, payload, err);
    if (code != TW_OK) {
        d->refused = true;
        d->trouble = *err;
    }
    return code;
}
