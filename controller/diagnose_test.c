/* A host's diagnosis, fetched from its (played) agent, and the clocks that are compared on the way.
 */
#include "controller/agents.h"
#include "controller/scene.h"

#include <string.h>

static enum tw_code diagnose(struct play *p, const char *host, ProtobufCMessage **answer,
                             struct tw_error *err)
{
    Towline__V1__DiagnoseHostRequest r = TOWLINE__V1__DIAGNOSE_HOST_REQUEST__INIT;
    r.name = (char *)(uintptr_t)host;
    return play_call(p, &towline__v1__host_service__descriptor, "Diagnose", &r.base, answer, err);
}

static void diagnoses_through_the_agent(unsigned variant)
{
    (void)variant;
    struct play p;
    struct tw_error err = {0};
    ProtobufCMessage *answer;
    scene_begin(&p);
    p.world.agents[B].clock_ahead_us = 3600000000u;
    CHECK(diagnose(&p, "node-b", &answer, &err) == TW_OK, "%s", err.what);
    const Towline__V1__DiagnoseHostResponse *r = (const void *)answer;
    CHECK(strcmp(r->diagnosis->host, "node-b") == 0 && r->diagnosis->n_results == 1, "diagnosis");
    CHECK(strcmp(r->diagnosis->results[0]->name, "played") == 0 &&
              strcmp(r->diagnosis->results[0]->found, "node-b") == 0,
          "result");
    const Towline__V1__ClockExchange *x = r->agent_clock;
    CHECK(x->asked_unix_us >= r->received_unix_us && x->returned_unix_us >= x->asked_unix_us &&
              r->answered_unix_us >= x->returned_unix_us,
          "the controller's own clock");
    CHECK(x->received_unix_us > x->returned_unix_us + 3000000000u &&
              x->answered_unix_us >= x->received_unix_us,
          "the agent's clock");
    protobuf_c_message_free_unpacked(answer, NULL);
    CHECK(diagnose(&p, "node-z", &answer, &err) == TW_NOT_FOUND, "%s", err.what);
    CHECK(diagnose(&p, "../x", &answer, &err) == TW_INVALID_ARGUMENT, "%s", err.what);
    fake_kill(&p.world, B);
    CHECK(tw_agents_silent(diagnose(&p, "node-b", &answer, &err)), "%s", err.what);
    CHECK(strcmp(err.where, "host node-b") == 0, "%s", err.where);
    play_passed(&p);
}

static const struct play_test tests[] = {
    {"diagnoses_through_the_agent", diagnoses_through_the_agent, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
