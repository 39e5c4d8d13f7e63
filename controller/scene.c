#include "controller/scene.h"

#include <string.h>

void scene_populate(struct play *p)
{
    struct tw_error err = {0};
    fake_start(&p->world, A);
    fake_start(&p->world, B);
    play_await_hosts(p, 2);
    CHECK(play_create(p, "web", "node-a", &err) == TW_OK, "%s", err.what);
}

void scene_begin(struct play *p)
{
    play_open(p);
    play_start(p);
    scene_populate(p);
}

void scene_begin_apart(struct play *p)
{
    play_open(p);
    play_spawn(p, "");
    scene_populate(p);
}

void scene_migrate(struct play *p, char id[64])
{
    struct tw_error err = {0};
    CHECK(play_migrate(p, "web", "node-b", id, &err) == TW_OK, "%s: %s", err.where, err.what);
}

void scene_await_hand_over(struct play *p, unsigned agent, const char *id, enum tw_known known)
{
    for (unsigned ms = 0; ms < 30000; ms += 2) {
        if (fake_hand_over(&p->world, agent, id) == known)
            return;
        usleep(2000);
    }
    CHECK(false, "hand-over %d instead of %d", fake_hand_over(&p->world, agent, id), known);
}

void scene_await_step(struct play *p, const char *id, unsigned step)
{
    for (unsigned ms = 0; ms < 50000 && fake_step_of(&p->world, A, id) + 1 != step; ms += 2)
        usleep(2000);
    CHECK(fake_step_of(&p->world, A, id) + 1 == step, "the source is not before step %u", step);
    play_await_state(p, id, step > FAKE_STOPPING ? PLAY_STATE(SWITCHING) : PLAY_STATE(COPYING),
                     5000);
}

void scene_await_partly(struct play *p, const char *id)
{
    fake_hold(&p->world, FAKE_COMMITTED);
    scene_await_hand_over(p, B, id, TW_KNOWN_PREPARED);
    fake_memory_follows(&p->world, B, id);
    fake_hold(&p->world, FAKE_FINISHED);
    scene_await_hand_over(p, B, id, TW_KNOWN_PARTLY);
}

void scene_let_it_see(void)
{
    usleep(300000);
}

enum tw_code scene_vm_call(struct play *p, const char *method, const char *name,
                           struct tw_error *err)
{
    Towline__V1__StopVmRequest stop = TOWLINE__V1__STOP_VM_REQUEST__INIT;
    Towline__V1__DeleteVmRequest gone = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    bool is_stop = strcmp(method, "Stop") == 0;
    stop.name = gone.name = (char *)(uintptr_t)name;
    enum tw_code code = play_call(p, &towline__v1__vm_service__descriptor, method,
                                  is_stop ? &stop.base : &gone.base, &m, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}
