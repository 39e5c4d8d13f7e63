#include "services/migration/control.h"

#include <criterion/criterion.h>
#include <string.h>

static enum tw_code decode(uint32_t tag, uint32_t length, enum tw_lane lane, const void *payload,
                           union tw_control *out, struct tw_error *err)
{
    struct tw_chunk_header h = {.kind = TW_CHUNK_CONTROL, .tag = tag, .length = length};
    return tw_control_decode(&h, lane, payload, out, err);
}

Test(control, every_kind_is_taken_by_its_lane_and_size_only)
{
    uint8_t payload[1024] = {0};
    union tw_control m;
    struct tw_error err;
    unsigned kinds = 0;
    for (uint32_t tag = 0; tag < 64; tag++) {
        uint32_t size = tw_control_size(tag);
        if (!size) {
            cr_assert_eq(decode(tag, 8, TW_LANE_BULK, payload, &m, &err), TW_INVALID_ARGUMENT);
            cr_assert_str_eq(tw_control_name(tag), "unknown");
            continue;
        }
        kinds++;
        bool urgent = tag >= TW_CONTROL_PREPARED && tag != TW_CONTROL_MAP_END &&
                      tag != TW_CONTROL_MISSING && tag != TW_CONTROL_KEEP_END;
        enum tw_lane lane = urgent ? TW_LANE_URGENT : TW_LANE_BULK;
        enum tw_lane other = urgent ? TW_LANE_BULK : TW_LANE_URGENT;
        payload[8] = tag == TW_CONTROL_WANT; /* it wants a line */
        cr_assert_eq(decode(tag, size, lane, payload, &m, &err), TW_OK);
        cr_assert_eq(decode(tag, size, other, payload, &m, &err), TW_INVALID_ARGUMENT);
        cr_assert_eq(decode(tag, size - 1, lane, payload, &m, &err), TW_INVALID_ARGUMENT);
        cr_assert_eq(decode(tag, size + 1, lane, payload, &m, &err), TW_INVALID_ARGUMENT);
        cr_assert_eq(decode(tag, 0, lane, payload, &m, &err), TW_INVALID_ARGUMENT);
    }
    cr_assert_eq(kinds, 16);
    cr_assert_eq(decode(UINT32_MAX, 8, TW_LANE_BULK, payload, &m, &err), TW_INVALID_ARGUMENT);
}

Test(control, unknown_values_are_refused)
{
    union tw_control m = {.begin = {.memory_bytes = 4096, .verify = 2}}, out;
    uint32_t size = sizeof m.begin;
    cr_assert_neq(decode(TW_CONTROL_BEGIN, size, TW_LANE_BULK, &m, &out, NULL), TW_OK);
    m.begin.verify = 1;
    cr_assert_eq(decode(TW_CONTROL_BEGIN, size, TW_LANE_BULK, &m, &out, NULL), TW_OK);
    cr_assert_eq(out.begin.memory_bytes, 4096);
    m.begin.method = 3;
    cr_assert_neq(decode(TW_CONTROL_BEGIN, size, TW_LANE_BULK, &m, &out, NULL), TW_OK);
}

Test(control, an_error_travels_and_a_strangers_text_is_cleaned)
{
    struct tw_error why, back;
    union tw_control m;
    tw_fail(&why, TW_DATA_LOSS, "vm web", "this", "that", "they differ");
    tw_control_abort_pack(&m.abort, &why, true);
    cr_assert_eq(m.abort.compared, 1);
    tw_control_abort_unpack(&m.abort, &back);
    cr_assert_eq(back.code, TW_DATA_LOSS);
    cr_assert_str_eq(back.where, "vm web");
    cr_assert_str_eq(back.what, "they differ");
    cr_assert_str_eq(back.expected, "this");
    cr_assert_str_eq(back.given, "that");

    memset(&m, 'x', sizeof m); /* no zero anywhere */
    m.abort.what[3] = '\n';
    m.abort.what[4] = '\033';
    m.abort.code = 4711;
    tw_control_abort_unpack(&m.abort, &back);
    cr_assert_eq(back.code, TW_UNKNOWN);
    cr_assert_eq(strlen(back.what), sizeof back.what - 1);
    cr_assert(strncmp(back.what, "xxx??xx", 7) == 0);
    m.abort.code = TW_OK;
    tw_control_abort_unpack(&m.abort, &back);
    cr_assert_eq(back.code, TW_UNKNOWN, "an abort is never OK");
}
