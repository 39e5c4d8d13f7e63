/* What of the verbs back end needs no device: bytes of strangers, arithmetic of rings and slices.
 */
#include "fabric/verbs_hello.h"
#include "fabric/verbs_ring.h"

#include <criterion/criterion.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static struct tw_hello a_hello(void)
{
    struct tw_hello hello = {
        .version = 3, .version_min = 1, .capabilities = 0xabcd, .epoch = 77, .name = "node-a"};
    memset(hello.owner, 0x5a, sizeof hello.owner);
    return hello;
}

Test(private_data, carries_the_hello)
{
    const struct tw_hello hello = a_hello();
    struct verbs_private sent, got;
    struct tw_error err;
    verbs_private_of_hello(&hello, 16, 2, &sent);
    cr_assert_eq(verbs_private_parse(&sent, sizeof sent, &got, &err), TW_OK);
    cr_assert_eq(got.purpose, VERBS_HELLO);
    cr_assert_eq(got.queue, 2);
    uint8_t storage[TW_HELLO_BYTES];
    struct tw_frame frame;
    struct tw_hello read;
    verbs_private_to_frame(&got, storage, &frame);
    tw_hello_decode(&read, frame.payload);
    cr_assert_eq(memcmp(&read, &hello, sizeof hello), 0);
    cr_assert_eq(frame.header.numbers[0], 16);
    cr_assert_eq(frame.header.numbers[1], TW_URGENT_CREDITS);
}

Test(private_data, cuts_a_long_name)
{
    struct tw_hello hello = a_hello();
    struct verbs_private p;
    memset(hello.name, 'x', sizeof hello.name - 1);
    verbs_private_of_hello(&hello, 16, 1, &p);
    cr_assert_eq(strnlen(p.name, sizeof p.name), VERBS_SHORT_NAME - 1);
}

Test(private_data, may_be_padded_but_not_short)
{
    const struct tw_hello hello = a_hello();
    uint8_t bytes[196] = {0};
    struct verbs_private p;
    verbs_private_of_hello(&hello, 16, 1, (struct verbs_private *)bytes);
    cr_assert_eq(verbs_private_parse(bytes, sizeof bytes, &p, NULL), TW_OK);
    cr_assert_eq(verbs_private_parse(bytes, VERBS_PRIVATE_BYTES - 1, &p, NULL),
                 TW_INVALID_ARGUMENT);
    cr_assert_eq(verbs_private_parse(NULL, 0, &p, NULL), TW_INVALID_ARGUMENT);
}

Test(private_data, refuses_what_makes_no_sense)
{
    const struct tw_hello hello = a_hello();
    struct verbs_private good, p, out;
    struct tw_error err;
    verbs_private_of_hello(&hello, 16, 1, &good);
    const struct {
        size_t at;
        uint8_t value;
    } cases[] = {
        {0, 0},
        {offsetof(struct verbs_private, purpose), 0},
        {offsetof(struct verbs_private, purpose), VERBS_ACCEPT + 1},
        {offsetof(struct verbs_private, queue), 0},
        {offsetof(struct verbs_private, queue), VERBS_QUEUES_MAX + 1},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        p = good;
        ((uint8_t *)&p)[cases[i].at] = cases[i].value;
        cr_assert_eq(verbs_private_parse(&p, sizeof p, &out, &err), TW_INVALID_ARGUMENT, "%u", i);
        cr_assert_str_eq(err.where, "private data");
    }
    good.purpose = VERBS_BULK;
    good.queue = VERBS_QUEUES_MAX;
    cr_assert_eq(verbs_private_parse(&good, sizeof good, &out, &err), TW_INVALID_ARGUMENT);
    good.queue = 0;
    cr_assert_eq(verbs_private_parse(&good, sizeof good, &out, &err), TW_OK);
}

Test(refusal, carries_code_and_text)
{
    struct tw_error err, got;
    struct verbs_refusal refusal;
    tw_fail(&err, TW_PERMISSION_DENIED, "vm web-1", NULL, NULL, "not today");
    verbs_refusal_encode(&err, &refusal);
    cr_assert(verbs_refusal_parse(&refusal, sizeof refusal, &got));
    cr_assert_eq(got.code, TW_PERMISSION_DENIED);
    cr_assert_not_null(strstr(got.what, "vm web-1: not today"), "%s", got.what);
    refusal.code = 4711;
    memset(refusal.text, 0x01, sizeof refusal.text);
    cr_assert(verbs_refusal_parse(&refusal, sizeof refusal, &got));
    cr_assert_eq(got.code, TW_UNKNOWN);
    cr_assert_not_null(strstr(got.what, "????"));
    refusal.code = TW_OK;
    cr_assert_not(verbs_refusal_parse(&refusal, sizeof refusal, &got), "a refusal has a reason");
    refusal.magic++;
    cr_assert_not(verbs_refusal_parse(&refusal, sizeof refusal, &got));
    cr_assert_not(verbs_refusal_parse(&refusal, 7, &got));
    cr_assert_not(verbs_refusal_parse(NULL, 0, &got));
}

Test(greeting, is_checked)
{
    struct verbs_greeting sent = {
        .rings = {{4096, 7, 16}, {8192, 7, TW_CREDITS_MAX}},
        .acks = {64, 9, 0},
        .consumed = {5, 6},
    };
    struct verbs_greeting got;
    verbs_greeting_seal(&sent);
    cr_assert_eq(verbs_greeting_parse(&sent, sizeof sent, &got, NULL), TW_OK);
    cr_assert_eq(memcmp(&got, &sent, sizeof got), 0);
    cr_assert_eq(verbs_greeting_parse(&sent, sizeof sent - 1, &got, NULL), TW_INVALID_ARGUMENT);
    for (size_t bit = 0; bit < 8 * sizeof sent; bit++) {
        struct verbs_greeting bad = sent;
        ((uint8_t *)&bad)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(verbs_greeting_parse(&bad, sizeof bad, &got, NULL), TW_INVALID_ARGUMENT);
    }
    sent.rings[0].slots = TW_CREDITS_MAX + 1;
    verbs_greeting_seal(&sent);
    cr_assert_eq(verbs_greeting_parse(&sent, sizeof sent, &got, NULL), TW_INVALID_ARGUMENT);
    sent.rings[0].slots = 0;
    verbs_greeting_seal(&sent);
    cr_assert_eq(verbs_greeting_parse(&sent, sizeof sent, &got, NULL), TW_INVALID_ARGUMENT);
}

Test(stream, has_as_many_under_way_as_slots)
{
    struct verbs_stream s = {.in_slots = 8, .out_slots = 3};
    for (unsigned i = 0; i < 3; i++) {
        cr_assert(verbs_stream_open(&s));
        s.next++;
        s.posted++;
    }
    cr_assert_not(verbs_stream_open(&s));
    cr_assert(verbs_stream_ack(&s, 1));
    cr_assert(verbs_stream_open(&s));
    cr_assert(verbs_stream_ack(&s, 0), "an old number, from before a break");
    cr_assert_eq(s.acked, 1);
    cr_assert_not(verbs_stream_ack(&s, 4), "never sent");
    cr_assert_eq(s.acked, 1);
}

Test(stream, sends_again_what_was_not_consumed)
{
    struct verbs_stream s = {
        .in_slots = 8, .out_slots = 8, .next = 10, .posted = 9, .acked = 4, .expected = 20};
    cr_assert_not(verbs_stream_resume(&s, 3), "taken back");
    cr_assert_not(verbs_stream_resume(&s, 11), "never made");
    cr_assert(verbs_stream_resume(&s, 7));
    cr_assert_eq(s.acked, 7);
    cr_assert_eq(s.posted, 7);
    cr_assert_eq(s.next, 10);
    cr_assert_eq(s.told, 20, "the greeting has told it");
}

Test(stream, tells_before_the_peer_has_to_wait)
{
    for (uint32_t slots = 1; slots <= 16; slots++) {
        struct verbs_stream s = {.in_slots = slots};
        while (!verbs_stream_told_late(&s))
            s.expected++;
        cr_assert_leq(s.expected, slots, "%u", slots);
        cr_assert_gt(s.expected, 0);
    }
}

Test(slices, cover_all_and_every_read_fits_one)
{
    const uint64_t step = MIB;
    const uint64_t lengths[] = {1, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 77};
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const uint64_t length = lengths[i], count = verbs_slice_count(length, step);
        for (uint64_t n = 0; n < count; n++) {
            const struct tw_range s = verbs_slice_at(length, step, n);
            cr_assert_eq(s.start, n * step);
            cr_assert(s.length > 0 && tw_range_fits(s, length));
            /* The longest read from the last byte before the next slice. */
            const uint64_t last = s.start + step - 1, most = length - 1;
            const uint64_t from = last < most ? last : most, left = length - from;
            const uint64_t size = left < TW_CHUNK_PAYLOAD ? left : TW_CHUNK_PAYLOAD;
            cr_assert(tw_range_fits((struct tw_range){from - s.start, size}, s.length));
        }
    }
    cr_assert_eq(verbs_slice_count(0, step), 0);
}

Test(slices, pin_whole_pages)
{
    cr_assert_eq(verbs_slices_pinned(0, 4096, MIB), 4096);
    cr_assert_eq(verbs_slices_pinned(4095, 2, MIB), 8192);
    cr_assert_eq(verbs_slices_pinned(0, 2 * MIB, MIB), 2 * MIB + TW_CHUNK_PAYLOAD);
    cr_assert_eq(verbs_slices_pinned(0, 0, MIB), 0);
}
