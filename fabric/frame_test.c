#include "fabric/backend.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint8_t bytes[TW_FRAME_MAX];

static size_t put_frame(enum tw_frame_kind kind, uint32_t length)
{
    struct tw_frame_header h = {.kind = (uint16_t)kind, .numbers = {1, 2, 3, 4}};
    memset(bytes + sizeof h, 7, length);
    tw_frame_seal(&h, bytes + sizeof h, length);
    memcpy(bytes, &h, sizeof h);
    return sizeof h + length;
}

static enum tw_code parse(size_t size, struct tw_frame *frame)
{
    struct tw_error err;
    uint8_t *exact = malloc(size + !size); /* the sanitizer sees one byte more */
    memcpy(exact, bytes, size);
    const enum tw_code code = tw_frame_parse(exact, size, frame, &err);
    free(exact);
    return code;
}

Test(frame, whole_ones_are_found)
{
    struct tw_frame frame;
    const size_t size = put_frame(TW_FRAME_GOODBYE, 20);
    cr_assert_eq(tw_frame_parse(bytes, sizeof bytes, &frame, NULL), TW_OK);
    cr_assert_eq(frame.kind, TW_FRAME_GOODBYE);
    cr_assert_eq(frame.size, size);
    cr_assert_eq(frame.length, 20);
    cr_assert_eq(frame.payload, bytes + TW_FRAME_HEADER);
    cr_assert_eq(frame.header.numbers[3], 4);
}

Test(frame, every_cut_asks_for_more)
{
    struct tw_frame frame;
    const size_t size = put_frame(TW_FRAME_HELLO, TW_HELLO_BYTES);
    for (size_t n = 0; n < size; n++) {
        cr_assert_eq(parse(n, &frame), TW_UNAVAILABLE, "%zu", n);
        cr_assert_eq(frame.size, n < TW_FRAME_HEADER ? TW_FRAME_HEADER : size);
    }
    cr_assert_eq(parse(size, &frame), TW_OK);
}

Test(frame, noise_is_refused_after_four_bytes)
{
    struct tw_frame frame;
    memcpy(bytes, "GET / HTTP/1.1\r\n", 16);
    cr_assert_eq(parse(3, &frame), TW_UNAVAILABLE);
    cr_assert_eq(parse(4, &frame), TW_INVALID_ARGUMENT);
}

Test(frame, header_is_checked_before_the_payload_is_there)
{
    struct tw_frame frame;
    struct tw_frame_header h;
    put_frame(TW_FRAME_HELLO, TW_HELLO_BYTES);
    memcpy(&h, bytes, sizeof h);
    const struct tw_frame_header good = h;

    h.length = UINT32_MAX;
    memcpy(bytes, &h, sizeof h);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_OUT_OF_RANGE);
    h.length = TW_HELLO_BYTES - 1;
    memcpy(bytes, &h, sizeof h);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_OUT_OF_RANGE);
    h = good;
    h.kind = TW_FRAME_KINDS;
    memcpy(bytes, &h, sizeof h);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_INVALID_ARGUMENT);
    h.kind = 0;
    memcpy(bytes, &h, sizeof h);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_INVALID_ARGUMENT);
    h = good;
    h.version++;
    memcpy(bytes, &h, sizeof h);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_FAILED_PRECONDITION);

    struct tw_chunk_header chunk = {.kind = TW_CHUNK_BLOB};
    tw_chunk_seal(&chunk, bytes);
    chunk.length = TW_CHUNK_PAYLOAD + 1;
    memcpy(bytes, &chunk, sizeof chunk);
    cr_assert_eq(parse(TW_FRAME_HEADER, &frame), TW_OUT_OF_RANGE);
}

Test(frame, every_flipped_bit_is_seen)
{
    struct tw_frame frame;
    const size_t size = put_frame(TW_FRAME_GOODBYE, 9);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_neq(parse(size, &frame), TW_OK, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(parse(size, &frame), TW_OK);
}

Test(frame, goodbye_fits_whatever_the_reason)
{
    struct tw_error why;
    memset(&why, 'x', sizeof why);
    why.code = TW_DATA_LOSS;
    why.where[63] = why.what[191] = why.expected[127] = why.given[127] = '\0';
    uint8_t out[TW_FRAME_HEADER + TW_GOODBYE_TEXT];
    struct tw_frame frame;
    const uint32_t size = tw_goodbye_encode(&why, out);
    cr_assert_leq(size, sizeof out);
    cr_assert_eq(tw_frame_parse(out, size, &frame, NULL), TW_OK);
    cr_assert_eq(frame.header.numbers[0], TW_DATA_LOSS);
}

Test(hello, name_of_a_stranger_is_made_text)
{
    uint8_t wire[TW_HELLO_BYTES];
    struct tw_hello hello;
    memset(wire, 0xff, sizeof wire);
    tw_hello_decode(&hello, wire);
    cr_assert_eq(strlen(hello.name), sizeof hello.name - 1);
    cr_assert_eq(hello.name[0], '?');

    memcpy(wire + offsetof(struct tw_hello, name), "a\" x=\\\n", 8);
    tw_hello_decode(&hello, wire);
    cr_assert_str_eq(hello.name, "a? x=??");

    memset(&hello, 0xcc, sizeof hello);
    memcpy(hello.name, "node-a", 7);
    tw_hello_encode(&hello, wire);
    for (size_t i = offsetof(struct tw_hello, name) + 6; i < sizeof wire; i++)
        cr_assert_eq(wire[i], 0, "memory leaks behind the name");
}

Test(hello, the_newest_common_version)
{
    const struct tw_hello old = {.version = 2, .version_min = 1},
                          mid = {.version = 4, .version_min = 2},
                          new = {.version = 9, .version_min = 3};
    uint16_t version = 0;
    cr_assert_eq(tw_hello_agree(&old, &mid, &version, NULL), TW_OK);
    cr_assert_eq(version, 2);
    cr_assert_eq(tw_hello_agree(&new, &mid, &version, NULL), TW_OK);
    cr_assert_eq(version, 4);
    struct tw_error err;
    cr_assert_eq(tw_hello_agree(&old, &new, &version, &err), TW_FAILED_PRECONDITION);
    cr_assert_str_eq(err.expected, "1 to 2");
    cr_assert_str_eq(err.given, "3 to 9");
    cr_assert_eq(tw_hello_agree(&new, &old, &version, &err), TW_FAILED_PRECONDITION);
}
