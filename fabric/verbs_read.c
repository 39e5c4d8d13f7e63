/* One-sided reads. The first read of a slice asks the peer's fabric where it is (LOOKUP, REGION);
 * from then on the device reads it without the peer's processor. Reads go into a registered buffer
 * and from there to their place: whoever asked may be gone when an answer comes. They end in order,
 * and only inside poll. */
#include "fabric/verbs_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES ((size_t)TW_READS_MAX * TW_CHUNK_PAYLOAD)

/* ---- Known slices ---------------------------------------------------------------------------- */

/* Index of the last slice that begins at or before (key, address), plus one. */
static size_t position(const struct verbs_reads *r, uint32_t key, uint64_t address)
{
    size_t low = 0, high = r->slice_count;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const struct verbs_slice *s = &r->slices[mid];
        if (s->key < key || (s->key == key && s->start <= address))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool covers(const struct verbs_slice *s, const struct tw_read *read)
{
    const struct tw_range range = {read->address - s->start, read->length};
    return s->key == read->key && read->address >= s->start && tw_range_fits(range, s->length);
}

/* Slices overlap: the last that begins before the read has the most behind it. */
static const struct verbs_slice *known(const struct verbs_reads *r, const struct tw_read *read)
{
    const size_t at = position(r, read->key, read->address);
    return at && covers(&r->slices[at - 1], read) ? &r->slices[at - 1] : NULL;
}

static bool learn(struct verbs_reads *r, const struct verbs_slice *slice)
{
    if (r->slice_count == VERBS_SLICES_MAX)
        r->slice_count = 0; /* they are asked for again as they are needed */
    const size_t at = position(r, slice->key, slice->start);
    if (at && r->slices[at - 1].key == slice->key && r->slices[at - 1].start == slice->start) {
        r->slices[at - 1] = *slice;
        return true;
    }
    if (r->slice_count == r->slice_room) {
        const size_t room = r->slice_room ? 2 * r->slice_room : 64;
        struct verbs_slice *more = realloc(r->slices, room * sizeof *more);
        if (!more)
            return false;
        r->slices = more;
        r->slice_room = room;
    }
    memmove(&r->slices[at + 1], &r->slices[at], (r->slice_count - at) * sizeof *r->slices);
    r->slices[at] = *slice;
    r->slice_count++;
    return true;
}

/* ---- Reads ----------------------------------------------------------------------------------- */

static void finish(struct verbs_conn *conn, uint64_t number, enum tw_code code)
{
    conn->reads.state[number % TW_READS_MAX] = VERBS_READ_DONE;
    conn->reads.code[number % TW_READS_MAX] = code;
    if (conn->link)
        conn->link->hot[TW_LANE_URGENT] = true;
}

/* From the first read on; it costs memory that must stay resident. */
static bool have_buffer(struct verbs_conn *conn)
{
    struct verbs_memory *m = conn->memory;
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    struct tw_error err;
    if (m->reads_mr)
        return true;
    if (verbs_memlock_check(f, BUFFER_BYTES, conn->base.label, &err))
        return false;
    void *bytes =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return false;
    /* On iWARP the answer to a READ is a write of the peer's device. */
    const int access = IBV_ACCESS_LOCAL_WRITE | (f->iwarp ? IBV_ACCESS_REMOTE_WRITE : 0);
    m->reads_mr =
        verbs_register(f, conn->domain, bytes, BUFFER_BYTES, access, conn->base.label, &err);
    if (!m->reads_mr)
        munmap(bytes, BUFFER_BYTES);
    else
        m->reads = bytes;
    return m->reads_mr;
}

void verbs_reads_unmap(struct verbs_fabric *f, struct verbs_memory *m)
{
    if (!m->reads_mr)
        return;
    verbs_deregister(f, m->reads_mr);
    munmap(m->reads, BUFFER_BYTES);
}

static void post(struct verbs_conn *conn, uint64_t number, const struct tw_read *read,
                 const struct verbs_slice *slice)
{
    struct verbs_queue *q = &conn->link->urgent;
    const size_t slot = (size_t)(number % TW_READS_MAX);
    struct ibv_sge sge = {(uintptr_t)(conn->memory->reads + slot * TW_CHUNK_PAYLOAD), read->length,
                          conn->memory->reads_mr->lkey};
    struct ibv_send_wr wr = {
        .wr_id = verbs_wr_id(VERBS_WR_READ, q, number),
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_READ,
        .wr.rdma = {slice->address + (read->address - slice->start), slice->rkey},
    };
    struct tw_error err;
    verbs_request_finish(q, &wr, true);
    conn->reads.place[slot] = q->posted;
    conn->reads.state[slot] = VERBS_READ_POSTED;
    q->link->fabric->stats.reads++;
    if (verbs_post(q, &wr, 1, &err))
        verbs_link_fail_with(q->link, &err);
}

static void ask(struct verbs_conn *conn, uint64_t number, const struct tw_read *read)
{
    struct verbs_reads *r = &conn->reads;
    if (r->asking)
        return;
    r->asking = r->ask_due = true;
    r->ask_number = number;
    r->ask = *read;
    tw_conn_kick(&conn->base, TW_LANE_URGENT);
}

void verbs_reads_pump(struct verbs_conn *conn)
{
    struct tw_reads *r = &conn->base.reads;
    if (conn->base.machine.state != TW_CONN_UP)
        return;
    for (; r->sent < r->next && !conn->link->failed; r->sent++) {
        const struct tw_read *read = &r->ring[r->sent % TW_READS_MAX];
        if (conn->reads.state[r->sent % TW_READS_MAX] == VERBS_READ_DONE)
            continue;
        if (!have_buffer(conn)) {
            finish(conn, r->sent, TW_RESOURCE_EXHAUSTED);
            verbs_wake(conn->link->fabric); /* poll may be over, or not have begun */
            continue;
        }
        const struct verbs_slice *slice = known(&conn->reads, read);
        if (!slice) {
            ask(conn, r->sent, read);
            return;
        }
        if (verbs_queue_room(&conn->link->urgent) < 4) {
            conn->link->starved[TW_LANE_URGENT] = true;
            return;
        }
        post(conn, r->sent, read, slice);
    }
}

void verbs_read_completed(struct verbs_conn *conn, uint64_t number, enum ibv_wc_status status)
{
    const struct tw_reads *r = &conn->base.reads;
    const size_t slot = (size_t)(number % TW_READS_MAX);
    if (number < r->done || number >= r->sent || conn->reads.state[slot] != VERBS_READ_POSTED)
        return;
    if (status == IBV_WC_SUCCESS) {
        conn->link->urgent.done = conn->reads.place[slot];
        finish(conn, number, TW_OK);
    } else if (status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_REM_INV_REQ_ERR ||
               status == IBV_WC_REM_OP_ERR) {
        finish(conn, number, TW_OUT_OF_RANGE); /* its region was unregistered */
    }
}

void verbs_reads_deliver(struct verbs_conn *conn)
{
    struct tw_reads *r = &conn->base.reads;
    while (!conn->base.hung_up && r->done < r->sent &&
           conn->reads.state[r->done % TW_READS_MAX] == VERBS_READ_DONE) {
        const size_t slot = (size_t)(r->done % TW_READS_MAX);
        const struct tw_read read = r->ring[slot];
        const enum tw_code code = conn->reads.code[slot];
        conn->reads.state[slot] = VERBS_READ_WAITS;
        r->done++;
        if (code == TW_OK) {
            memcpy(read.into, conn->memory->reads + slot * TW_CHUNK_PAYLOAD, read.length);
            conn->base.stats.bytes_received += read.length;
            tw_conn_heard(&conn->base);
        }
        conn->base.fabric->config.events->on_read(conn->base.ctx, &conn->base, read.cookie, code);
    }
}

/* Whatever brought the link down: places may have changed meanwhile. */
void verbs_reads_rewind(struct verbs_conn *conn)
{
    struct tw_reads *r = &conn->base.reads;
    for (uint64_t n = r->done; n < r->sent; n++)
        if (conn->reads.state[n % TW_READS_MAX] == VERBS_READ_POSTED)
            conn->reads.state[n % TW_READS_MAX] = VERBS_READ_WAITS;
    r->sent = r->done;
    conn->reads.slice_count = 0;
}

void verbs_reads_free(struct verbs_conn *conn)
{
    free(conn->reads.slices);
    conn->reads = (struct verbs_reads){0};
}

/* ---- Where a slice is ------------------------------------------------------------------------ */

static bool find(struct verbs_conn *conn, struct verbs_slice *out)
{
    const struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++) {
        const struct tw_region *r = &f->base.regions[i];
        if (r->memory && r->key == conn->reads.answer_key &&
            memcmp(r->token, conn->base.ours.owner, TW_OWNER_SIZE) == 0)
            return verbs_region_slice(r, conn->reads.answer_address, f->config.slice_bytes, out);
    }
    return false;
}

static uint32_t seal(struct tw_frame_header header, uint8_t out[TW_FRAME_HEADER])
{
    tw_frame_seal(&header, NULL, 0);
    memcpy(out, &header, sizeof header);
    return TW_FRAME_HEADER;
}

uint32_t verbs_reads_frame(struct verbs_conn *conn, uint8_t out[TW_FRAME_HEADER])
{
    struct verbs_reads *r = &conn->reads;
    if (conn->base.hung_up || conn->base.machine.state != TW_CONN_UP)
        return 0;
    if (r->ask_due) {
        r->ask_due = false;
        verbs_fabric_of(&conn->base)->stats.lookups++;
        return seal((struct tw_frame_header){.kind = TW_FRAME_LOOKUP,
                                             .numbers = {r->ask.key, r->ask.address}},
                    out);
    }
    if (!r->answer_due)
        return 0;
    r->answer_due = false;
    struct verbs_slice slice = {0};
    struct tw_frame_header header = {.kind = TW_FRAME_REGION, .numbers = {r->answer_key}};
    if (find(conn, &slice)) {
        header.numbers[1] = slice.start;
        header.numbers[2] = slice.length;
        header.numbers[3] = slice.address;
        memcpy(header.id, &slice.rkey, sizeof slice.rkey);
    }
    return seal(header, out);
}

static void got_region(struct verbs_conn *conn, const struct tw_frame_header *h)
{
    struct verbs_reads *r = &conn->reads;
    struct tw_reads *all = &conn->base.reads;
    struct verbs_slice slice = {
        .key = r->ask.key,
        .start = h->numbers[1],
        .length = h->numbers[2],
        .address = h->numbers[3],
    };
    memcpy(&slice.rkey, h->id, sizeof slice.rkey);
    r->asking = false;
    const bool good = h->numbers[0] == r->ask.key && covers(&slice, &r->ask);
    if ((!good || !learn(r, &slice)) && r->ask_number >= all->done && r->ask_number < all->next)
        finish(conn, r->ask_number, good ? TW_RESOURCE_EXHAUSTED : TW_OUT_OF_RANGE);
    tw_conn_kick(&conn->base, TW_LANE_URGENT);
}

bool verbs_reads_take(struct verbs_conn *conn, const struct tw_frame *frame)
{
    struct verbs_reads *r = &conn->reads;
    struct tw_error err;
    const bool up = conn->base.machine.state == TW_CONN_UP;
    switch (frame->kind) {
    case TW_FRAME_LOOKUP:
        if (!up || r->answer_due)
            break;
        r->answer_due = true;
        r->answer_key = (uint32_t)frame->header.numbers[0];
        r->answer_address = frame->header.numbers[1];
        tw_conn_kick(&conn->base, TW_LANE_URGENT);
        return true;
    case TW_FRAME_REGION:
        if (!up || !r->asking)
            break;
        got_region(conn, &frame->header);
        return true;
    case TW_FRAME_READ:
    case TW_FRAME_DATA:
        break; /* here the device reads */
    default:
        return false;
    }
    tw_fail(&err, TW_INVALID_ARGUMENT, "frame", NULL, NULL,
            "a frame of kind %d makes no sense here and now", (int)frame->kind);
    tw_conn_fail(&conn->base, &err);
    return true;
}
