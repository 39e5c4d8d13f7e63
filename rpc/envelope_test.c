#include "rpc/envelope.h"

#include "rpc/bounded.h"
#include "rpc/test_service.h"

#include "base/clock.h"

#include "towline/v1/common.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const struct tw_rpc_versions accepted = {.newest = 1, .oldest = 1};

static Towline__V1__RpcRequest request_head(void)
{
    Towline__V1__RpcRequest head = TOWLINE__V1__RPC_REQUEST__INIT;
    head.version = 1;
    head.request_id = test_text("a.B_9:-");
    head.deadline_ms = 250;
    head.service = test_text("towline.v1.VmService");
    head.method = test_text("Get");
    return head;
}

Test(envelope, request_round_trip)
{
    Towline__V1__RpcRequest head = request_head(), *back;
    Towline__V1__GetVmRequest body = TOWLINE__V1__GET_VM_REQUEST__INIT;
    struct tw_frame frame;
    body.name = test_text("web-1");
    cr_assert_eq(tw_envelope_request_pack(&head, &body.base, &frame, NULL), TW_OK);
    cr_assert_null(head.body.data, "the body is lent only for the time of packing");
    cr_assert_eq(tw_envelope_request_unpack(frame.data, frame.size, accepted, &back, NULL), TW_OK);
    cr_assert_str_eq(back->request_id, "a.B_9:-");
    cr_assert_eq(back->deadline_ms, 250);
    Towline__V1__GetVmRequest *inner =
        towline__v1__get_vm_request__unpack(NULL, back->body.len, back->body.data);
    cr_assert_str_eq(inner->name, "web-1");
    towline__v1__get_vm_request__free_unpacked(inner, NULL);
    towline__v1__rpc_request__free_unpacked(back, NULL);
    tw_frame_free(&frame);
}

Test(envelope, deadline_is_cut_to_an_hour)
{
    Towline__V1__RpcRequest head = request_head(), *back;
    struct tw_frame frame;
    head.deadline_ms = UINT32_MAX;
    cr_assert_eq(tw_envelope_request_pack(&head, NULL, &frame, NULL), TW_OK);
    cr_assert_eq(tw_envelope_request_unpack(frame.data, frame.size, accepted, &back, NULL), TW_OK);
    cr_assert_eq(back->deadline_ms, TW_RPC_DEADLINE_MS_MAX);
    towline__v1__rpc_request__free_unpacked(back, NULL);
    tw_frame_free(&frame);
}

Test(envelope, every_cut_of_a_request_is_refused_or_harmless)
{
    Towline__V1__RpcRequest head = request_head(), *back;
    Towline__V1__GetVmRequest body = TOWLINE__V1__GET_VM_REQUEST__INIT;
    struct tw_frame frame;
    body.name = test_text("web-1");
    cr_assert_eq(tw_envelope_request_pack(&head, &body.base, &frame, NULL), TW_OK);
    for (size_t size = 0; size < frame.size; size++) {
        uint8_t *cut = malloc(size ? size : 1);
        memcpy(cut, frame.data, size);
        enum tw_code code = tw_envelope_request_unpack(cut, size, accepted, &back, NULL);
        /* Only a cut between the last two fields leaves a whole request: one without a body. */
        cr_assert(code != TW_OK || back->body.len == 0);
        if (back)
            towline__v1__rpc_request__free_unpacked(back, NULL);
        free(cut);
    }
    tw_frame_free(&frame);
}

Test(envelope, body_at_the_limit)
{
    Towline__V1__RpcRequest head = request_head();
    Towline__V1__GetVmRequest body = TOWLINE__V1__GET_VM_REQUEST__INIT;
    struct tw_frame frame;
    struct tw_error err;
    char *name = malloc(TW_RPC_MESSAGE_MAX);
    memset(name, 'n', TW_RPC_MESSAGE_MAX);
    name[TW_RPC_MESSAGE_MAX - 1] = 0;
    body.name = name;
    cr_assert_eq(tw_envelope_request_pack(&head, &body.base, &frame, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_null(frame.data);
    name[TW_RPC_MESSAGE_MAX - 100] = 0;
    cr_assert_eq(tw_envelope_request_pack(&head, &body.base, &frame, NULL), TW_OK);
    cr_assert_leq(frame.size, TW_RPC_MESSAGE_MAX);
    tw_frame_free(&frame);
    free(name);
}

Test(convert, error_there_and_back)
{
    struct tw_error err, back;
    tw_fail(&err, TW_ABORTED, "vm web-1", "4", "5", "too many");
    Towline__V1__ErrorDetail *detail = tw_error_to_proto(&err);
    cr_assert_not_null(detail);
    tw_error_from_proto(detail, &back);
    cr_assert_eq(back.code, TW_ABORTED);
    cr_assert_str_eq(back.where, "vm web-1");
    cr_assert_str_eq(back.what, "too many");
    cr_assert_str_eq(back.expected, "4");
    cr_assert_str_eq(back.given, "5");
    towline__v1__error_detail__free_unpacked(detail, NULL);
}

Test(convert, no_error_is_no_detail)
{
    struct tw_error err = {0}, back = {.code = TW_ABORTED, .what = "old"};
    cr_assert_null(tw_error_to_proto(&err));
    cr_assert_null(tw_error_to_proto(NULL));
    tw_error_from_proto(NULL, &back);
    cr_assert_eq(back.code, TW_OK);
    cr_assert_str_eq(back.what, "");
}

Test(convert, long_texts_are_cut_at_a_character)
{
    Towline__V1__ErrorDetail detail = TOWLINE__V1__ERROR_DETAIL__INIT;
    struct tw_error err;
    char where[80] = {0};
    for (int i = 0; i < 39; i++)
        memcpy(where + 2 * i, "\xc3\xa4", 2);
    detail.where = where;
    detail.code = 1000;
    tw_error_from_proto(&detail, &err);
    cr_assert_eq(err.code, TW_UNKNOWN);
    cr_assert_eq(strlen(err.where), 62, "31 whole characters of two bytes fit into 63");
}

static void quick(void *arg)
{
    *(bool *)arg = true;
}

struct slow {
    _Atomic bool let_go, ended;
};

static void slow(void *arg)
{
    struct slow *s = arg;
    for (unsigned ms = 0; ms < 30000 && !atomic_load(&s->let_go); ms++)
        test_sleep_ms(1);
    atomic_store(&s->ended, true);
}

Test(bounded, waits_for_work_but_not_for_ever)
{
    bool done = false;
    cr_assert(tw_bounded_run(quick, &done, 20000));
    cr_assert(done);
    static struct slow s; /* outlives the test, should the thread do so */
    cr_assert_not(tw_bounded_run(slow, &s, 50));
    cr_assert_not(atomic_load(&s.ended));
    atomic_store(&s.let_go, true);
    for (unsigned ms = 0; ms < 20000 && !atomic_load(&s.ended); ms++)
        test_sleep_ms(1);
    test_sleep_ms(100); /* the thread itself ends before the leak check */
}
