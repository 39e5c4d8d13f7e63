#include "tests/attachments/guest.h"
#include "guests/sparse/machine.h"

void guest_main(const void *info);

static uint8_t *const region = (uint8_t *)TW_CONTRACT_REGION;

static void set(const struct contract_store *s)
{
    uint8_t *at = region + s->offset;
    uint32_t count = s->size;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"((uint8_t)s->value) : "memory");
}

static void copy(const struct contract_store *s)
{
    static uint8_t bytes[256];
    uint8_t *at = region + s->offset;
    const uint8_t *from = bytes;
    uint32_t count = s->size;
    for (uint32_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(s->value + i);
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
}

static void carry_out(const struct contract_store *s)
{
    if (s->kind == CONTRACT_SET)
        set(s);
    else if (s->kind == CONTRACT_COPY)
        copy(s);
    else
        contract_perform(region, s);
}

static void serve(volatile struct tw_contract_control *c)
{
    uint32_t state = 1;
    for (;;) {
        const uint32_t asked = __atomic_load_n(&c->asked, __ATOMIC_ACQUIRE);
        if (asked != c->done) {
            const struct contract_store store = c->store;
            carry_out(&store);
            __atomic_store_n(&c->done, asked, __ATOMIC_RELEASE);
        }
        const uint32_t storm = __atomic_load_n(&c->storm, __ATOMIC_ACQUIRE);
        if (c->storming != storm)
            c->storming = storm;
        for (unsigned i = 0; storm && i < 64; i++)
            contract_storm(region, &state);
        if (!storm)
            __asm__ volatile("pause");
    }
}

void guest_main(const void *info)
{
    volatile struct tw_contract_control *c = (volatile void *)TW_CONTRACT_CONTROL;
    (void)info;
    machine_init(1000);
    *c = (struct tw_contract_control){.magic = 0};
    for (uint32_t i = 0; i < CONTRACT_BYTES; i++)
        region[i] = CONTRACT_FILL;
    __atomic_store_n(&c->magic, TW_CONTRACT_MAGIC, __ATOMIC_RELEASE);
    machine_print("READY\n");
    serve(c);
}
