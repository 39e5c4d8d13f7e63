/* The plugin inside a QEMU that is played here: where each access goes, what the API answers and
 * what stands in the opaque handle are the test's to say. */
#include "hosts/link/link.h"
#include "hosts/qemu/plugin_abi.h"
#include "hosts/qemu/remap.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB       (UINT64_C(1) << 20)
#define MEMORY    (4 * MIB)
#define GUEST_AT  UINT64_C(0xc0000000) /* virtual address of guest page 0 of our page table */
#define STORE     0x100u
#define LOAD      0u
#define BYTES(n)  ((unsigned)__builtin_ctz(n))
#define DEVICE    UINT64_MAX
#define NOT_OURS  (UINT64_MAX - 1)
#define LEARN     5000u /* stores after which the host address is trusted */
#define TABLE_MAX 64u

/* ---- The played QEMU ------------------------------------------------------------------------- */

struct qemu_plugin_hwaddr {
    bool io;
    uint64_t host; /* second word: what the plugin peeks at */
    uint64_t physical;
};

static struct {
    char dir[40], ram[64], link_path[64];
    uint8_t *memory;
    struct tw_link link;
    qemu_plugin_tb_trans_cb translate;
    qemu_plugin_vcpu_cb vcpu_start;
    qemu_plugin_udata_cb executed; /* of the last instruction translated; NULL = not wanted */
    uint8_t insn[TW_INSN_MAX];     /* the one that is translated */
    size_t insn_size;
    bool copies_insn; /* as later versions of QEMU do */
    bool odd_kinds;   /* nor does a bit of it tell a store */
    bool odd_sizes;   /* the size does not stand in three bits of an access's information */
    qemu_plugin_mem_cb access;
    enum qemu_plugin_mem_rw wanted;
    uint64_t table[TABLE_MAX];             /* virtual page -> RAM offset, DEVICE or NOT_OURS */
    uint64_t (*physical)(uint64_t offset); /* what the API says of a RAM offset */
    uint64_t handle_skew;                  /* added to the address in the handle */
    unsigned api_calls, handles;
} t;

static uint64_t same(uint64_t offset)
{
    return offset;
}

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_tb_trans_cb cb)
{
    (void)id;
    t.translate = cb;
}

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_cb cb)
{
    (void)id;
    t.vcpu_start = cb;
}

size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn)
{
    (void)insn;
    return t.insn_size;
}

uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *bytes, size_t size)
{
    (void)insn;
    if (!t.copies_insn)
        return (uintptr_t)t.insn;
    const size_t n = t.insn_size < size ? t.insn_size : size;
    memcpy(bytes, t.insn, n);
    return n;
}

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, qemu_plugin_udata_cb cb,
                                            enum qemu_plugin_cb_flags flags, void *userdata)
{
    (void)insn;
    (void)flags;
    (void)userdata;
    t.executed = cb;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb)
{
    (void)tb;
    return 1;
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index)
{
    (void)tb;
    (void)index;
    return NULL;
}

void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_mem_cb cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw,
                                      void *userdata)
{
    (void)insn;
    (void)flags;
    (void)userdata;
    t.access = cb;
    t.wanted = rw;
}

struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t info, uint64_t vaddr)
{
    static struct qemu_plugin_hwaddr where;
    static int device;
    (void)info;
    t.handles++;
    const uint64_t page = t.table[(vaddr - GUEST_AT) / TW_PAGE_SIZE];
    where = (struct qemu_plugin_hwaddr){.io = page == DEVICE};
    if (page == DEVICE) {
        where.host = (uint64_t)(uintptr_t)&device;
        where.physical = 0x1000; /* also an offset in RAM, if one took it for that */
    } else if (page == NOT_OURS) {
        where.host = (uint64_t)(uintptr_t)&device;
        where.physical = MEMORY + 0x40;
    } else {
        const uint64_t offset = page + vaddr % TW_PAGE_SIZE;
        where.host = (uint64_t)(uintptr_t)t.memory + offset + t.handle_skew;
        where.physical = t.physical(offset);
    }
    return &where;
}

bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *where)
{
    return where->io;
}

uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *where)
{
    t.api_calls++;
    return where->physical;
}

unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info)
{
    return (info & 7) ^ (t.odd_sizes && info == 0xfff0 ? 1 : 0);
}

bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info)
{
    return (info & STORE) != 0 || (t.odd_kinds && info == 251);
}

/* ---- The test's side ------------------------------------------------------------------------- */

static void setup(void)
{
    t.physical = same;
    strcpy(t.dir, "/tmp/towline-plugin-XXXXXX");
    cr_assert_neq(mkdtemp(t.dir), NULL);
    snprintf(t.ram, sizeof t.ram, "%s/ram", t.dir);
    snprintf(t.link_path, sizeof t.link_path, "%s/link", t.dir);
}

static void teardown(void)
{
    unlink(t.ram);
    unlink(t.link_path);
    rmdir(t.dir);
}

TestSuite(plugin, .init = setup, .fini = teardown);

static int install_with(const char *more)
{
    char link[80], ram[80], extra[40];
    char *arguments[] = {link, ram, extra};
    const struct qemu_plugin_info info = {
        .target_name = "x86_64", .system_emulation = true, .system = {2, 2}};
    snprintf(link, sizeof link, "link=%s", t.link_path);
    snprintf(ram, sizeof ram, "ram=%s", t.ram);
    snprintf(extra, sizeof extra, "%s", more);
    return qemu_plugin_install(7, &info, 3, arguments);
}

/* RAM of `memory` bytes, of which MEMORY are mapped where the guest can reach them. */
static void prepare(enum tw_link_kind kind, uint64_t memory, const char *more)
{
    const struct tw_link_config config = {
        .kind = kind,
        .memory_bytes = memory,
        .low_memory_bytes = memory > MEMORY ? MEMORY / 2 : memory,
        .vcpus = 2,
        .ring_events = 16384,
    };
    struct tw_error err;
    const int fd = open(t.ram, O_RDWR | O_CREAT, 0600);
    cr_assert_eq(ftruncate(fd, (off_t)memory), 0);
    t.memory = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    cr_assert_eq(tw_link_create(t.link_path, &config, &t.link, &err), TW_OK);
    cr_assert_eq(install_with(more), 0);
    cr_assert_eq(t.link.header->attached, 1);
    for (unsigned i = 0; i < TABLE_MAX; i++)
        t.table[i] = (uint64_t)i * 2 * TW_PAGE_SIZE; /* neighbours are not neighbours in RAM */
}

static void start(enum tw_link_kind kind, uint64_t memory, const char *more)
{
    prepare(kind, memory, more);
    t.vcpu_start(7, 1);
    t.translate(7, NULL);
}

/* The guest executes an instruction. */
static void execute(const uint8_t *bytes, size_t size)
{
    memcpy(t.insn, bytes, size);
    t.insn_size = size;
    t.executed = NULL;
    t.translate(7, NULL);
    if (t.executed)
        t.executed(1, NULL);
}

static void flush(void)
{
    static const uint8_t mov_to_cr3[] = {0x0f, 0x22, 0xd8};
    execute(mov_to_cr3, sizeof mov_to_cr3);
}

static void access_at(unsigned kind, unsigned bytes, uint64_t place)
{
    t.access(1, kind | BYTES(bytes), GUEST_AT + place, NULL);
}

struct seen {
    uint64_t lines[32]; /* line numbers, in order */
    unsigned count;
};

static void note_page(void *ctx, uint64_t page, uint64_t lines)
{
    struct seen *s = ctx;
    for (; lines && s->count < 32; lines &= lines - 1)
        s->lines[s->count++] = page * 64 + (uint64_t)__builtin_ctzll(lines);
}

static struct seen marks(void)
{
    struct seen s = {0};
    tw_link_scan(&t.link.map, note_page, &s);
    return s;
}

static void learn(void)
{
    for (unsigned i = 0; i < LEARN; i++)
        access_at(STORE, 4, 0);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_HOST);
    marks();
    t.api_calls = 0;
}

static void expect_lines(unsigned count, uint64_t first, uint64_t second)
{
    const struct seen s = marks();
    cr_assert_eq(s.count, count, "%u lines", s.count);
    if (count > 0)
        cr_assert_eq(s.lines[0], first);
    if (count > 1)
        cr_assert_eq(s.lines[1], second);
}

/* Every size at every place around the ends of a line and of a page. */
static void every_crossing(void)
{
    static const uint64_t edges[] = {64, 1024, 4096, 8192 - 64};
    for (unsigned e = 0; e < 4; e++)
        for (unsigned bytes = 1; bytes <= 32; bytes *= 2)
            for (uint64_t at = edges[e] - 33; at < edges[e] + 2; at++) {
                access_at(STORE, bytes, at);
                /* RAM offsets of first and last byte: page n lies at page 2n. */
                const uint64_t last = at + bytes - 1;
                const uint64_t a = at / 4096 * 8192 + at % 4096;
                const uint64_t b = last / 4096 * 8192 + last % 4096;
                expect_lines(a / 64 == b / 64 ? 1 : 2, a / 64, b / 64);
            }
}

Test(plugin, host_addresses_are_trusted_after_many_agreements)
{
    start(TW_LINK_MARK, MEMORY, "");
    cr_assert_eq(t.wanted, QEMU_PLUGIN_MEM_W);
    access_at(STORE, 4, 0);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_CHECKING);
    expect_lines(1, 0, 0);
    learn();
    every_crossing();
    cr_assert_eq(t.api_calls, 0);
}

/* QEMU 7.2 calls for them, too. */
static void loads_are_not_marked(void)
{
    start(TW_LINK_MARK, MEMORY, "");
    learn();
    marks();
    access_at(LOAD, 4, 64);
    expect_lines(0, 0, 0);
    access_at(STORE, 4, 64);
    expect_lines(1, 1, 0);
}

Test(plugin, loads_are_not_marked)
{
    loads_are_not_marked();
}

Test(plugin, loads_that_no_bit_tells_are_not_marked)
{
    t.odd_kinds = true;
    loads_are_not_marked();
}

Test(plugin, sizes_that_stand_nowhere_are_asked_for)
{
    t.odd_sizes = true;
    start(TW_LINK_MARK, MEMORY, "");
    learn();
    every_crossing();
}

Test(plugin, the_api_way_finds_the_same_lines)
{
    start(TW_LINK_MARK, MEMORY, "mismatch=1");
    access_at(STORE, 4, 0);
    marks();
    cr_assert_eq(t.link.header->address_mode, TW_LINK_API);
    every_crossing();
    cr_assert_gt(t.api_calls, 0);
}

Test(plugin, a_handle_of_another_make_means_the_api)
{
    start(TW_LINK_MARK, MEMORY, "");
    t.handle_skew = 4096;
    access_at(STORE, 8, 64);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_API);
    expect_lines(1, 1, 0);
}

Test(plugin, a_handle_that_changes_later_makes_all_dirty)
{
    start(TW_LINK_MARK, MEMORY, "");
    learn();
    t.handle_skew = 64;
    for (unsigned i = 0; i < 1u << 16; i++)
        access_at(STORE, 4, 0);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_API);
    uint64_t lines = 0;
    struct seen s = {0};
    lines = tw_link_scan(&t.link.map, note_page, &s);
    cr_assert_eq(lines, MEMORY / 64);
    access_at(STORE, 4, 128);
    expect_lines(1, 2, 0);
}

Test(plugin, ram_that_is_not_mapped_means_the_api)
{
    prepare(TW_LINK_MARK, MEMORY, "");
    munmap(t.memory, MEMORY);
    t.translate(7, NULL);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_API);
    access_at(STORE, 4, 0);
    expect_lines(1, 0, 0);
}

Test(plugin, devices_and_other_memory_are_not_reported)
{
    start(TW_LINK_MARK, MEMORY, "");
    for (int round = 0; round < 2; round++) {
        t.table[1] = DEVICE;
        flush();
        access_at(STORE, 4, 4096);
        t.table[1] = NOT_OURS;
        access_at(STORE, 4, 4096);
        expect_lines(0, 0, 0);
        t.table[1] = DEVICE; /* the second part of a store that begins in RAM */
        access_at(STORE, 8, 4092);
        expect_lines(1, 63, 0);
        if (round == 0)
            learn();
    }
    cr_assert_eq(t.link.header->address_mode, TW_LINK_HOST, "none of it is a mismatch");
}

static struct {
    uint64_t address[8];
    bool store[8];
    unsigned count;
} events;

static void note_event(void *ctx, uint32_t vcpu, uint64_t address, bool store)
{
    (void)ctx;
    cr_assert_eq(vcpu, 1);
    cr_assert_lt(events.count, 8);
    events.address[events.count] = address;
    events.store[events.count++] = store;
}

static void ignore_event(void *ctx, uint32_t vcpu, uint64_t address, bool store)
{
    (void)ctx;
    (void)vcpu;
    (void)address;
    (void)store;
}

/* ---- What is remembered ---------------------------------------------------------------------- */

Test(plugin, a_page_is_asked_for_once)
{
    start(TW_LINK_MARK, MEMORY, "");
    learn();
    access_at(STORE, 4, 4096);
    t.handles = 0;
    for (unsigned i = 0; i < 1000; i++)
        access_at(STORE, 4, 4096 + i % 64 * 64);
    cr_assert_eq(t.handles, 0);
    cr_assert_eq(tw_link_scan(&t.link.map, note_page, &(struct seen){0}), 64);
    t.access(0, STORE | BYTES(4), GUEST_AT + 4096, NULL);
    cr_assert_eq(t.handles, 1, "each vCPU remembers for itself");
}

Test(plugin, a_new_mapping_is_seen_after_the_instruction_that_makes_it)
{
    static const uint8_t mov_to_cr3[] = {0x0f, 0x22, 0xd8}, invlpg[] = {0x0f, 0x01, 0x38},
                         iretq[] = {0x48, 0xcf}, add[] = {0x01, 0xd8};
    start(TW_LINK_MARK, MEMORY, "");
    learn();
    for (unsigned i = 0; i < 3 * 4096 + 5; i++) { /* through all ages and on */
        t.table[1] = (uint64_t)(i % 7) * 3 * TW_PAGE_SIZE;
        t.copies_insn = i % 2;
        if (i % 3 == 0)
            execute(mov_to_cr3, sizeof mov_to_cr3);
        else if (i % 3 == 1)
            execute(invlpg, sizeof invlpg);
        else
            execute(iretq, sizeof iretq);
        access_at(STORE, 4, 4096);
        expect_lines(1, t.table[1] / 64, 0);
    }
    t.handles = 0;
    execute(add, sizeof add);
    access_at(STORE, 4, 4096);
    cr_assert_eq(t.handles, 0, "an addition maps nothing");
}

/* Should a mapping change without any such instruction, the next comparison notices. */
Test(plugin, a_mapping_that_changed_unseen_makes_all_dirty)
{
    start(TW_LINK_MARK, MEMORY, "recheck=64");
    learn();
    access_at(STORE, 4, 4096);
    t.table[1] += TW_PAGE_SIZE;
    for (unsigned i = 0; i < 64; i++)
        access_at(STORE, 4, 4096);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_API);
    cr_assert_eq(tw_link_scan(&t.link.map, note_page, &(struct seen){0}), MEMORY / 64);
    access_at(STORE, 4, 4096);
    expect_lines(1, t.table[1] / 64, 0);
}

Test(plugin, what_is_remembered_is_never_a_device)
{
    start(TW_LINK_RING, MEMORY, "");
    learn();
    bool sane;
    tw_link_ring_drain(&t.link, 1, ignore_event, NULL, &sane);
    t.table[1] = DEVICE;
    access_at(LOAD, 4, 4096);
    t.table[1] = 0;
    access_at(STORE, 4, 4096); /* a device gives way to RAM without a word */
    events.count = 0;
    tw_link_ring_drain(&t.link, 1, note_event, NULL, &sane);
    cr_assert_eq(events.count, 1);
    cr_assert_eq(events.address[0], 0);
}

/* Memory above 4 GiB: the API names the guest-physical address, or the offset, as QEMU likes. */
static uint64_t above_the_hole(uint64_t offset)
{
    return offset < MEMORY / 2 ? offset : offset - MEMORY / 2 + (UINT64_C(4) << 30);
}

static void split_memory(void)
{
    start(TW_LINK_MARK, 2 * MEMORY, "");
    t.table[5] = MEMORY / 2 + 4096;
    access_at(STORE, 4, 5 * 4096 + 64);
    expect_lines(1, (MEMORY / 2 + 4096) / 64 + 1, 0);
    learn();
    access_at(STORE, 4, 5 * 4096);
    expect_lines(1, (MEMORY / 2 + 4096) / 64, 0);
    for (unsigned i = 0; i < 1u << 17; i++) /* rechecks up there agree as well */
        access_at(STORE, 4, 5 * 4096);
    cr_assert_eq(t.link.header->address_mode, TW_LINK_HOST);
}

Test(plugin, split_memory_by_guest_physical_addresses)
{
    t.physical = above_the_hole;
    split_memory();
}

Test(plugin, split_memory_by_offsets)
{
    split_memory();
}

Test(plugin, loads_and_stores_into_the_ring)
{
    bool sane;
    start(TW_LINK_RING, MEMORY, "");
    cr_assert_eq(t.wanted, QEMU_PLUGIN_MEM_RW);
    for (int round = 0; round < 2; round++) {
        events.count = 0;
        access_at(LOAD, 8, 256);
        access_at(STORE, 8, 4092); /* across a page */
        access_at(LOAD, 2, 63);
        tw_link_ring_drain(&t.link, 1, note_event, NULL, &sane);
        cr_assert(sane);
        cr_assert_eq(events.count, 5);
        static const uint64_t want[] = {256, 4032, 8192, 0, 64};
        for (unsigned i = 0; i < 5; i++) {
            cr_assert_eq(events.address[i], want[i], "event %u", i);
            cr_assert_eq(events.store[i], i == 1 || i == 2);
        }
        expect_lines(0, 0, 0);
        if (round == 0) {
            learn();
            tw_link_ring_drain(&t.link, 1, ignore_event, NULL, &sane);
        }
    }
}

Test(plugin, a_full_ring_marks_stores_and_drops_loads)
{
    start(TW_LINK_RING, MEMORY, "");
    for (unsigned i = 0; i < 16384; i++)
        access_at(STORE, 4, 0);
    access_at(STORE, 4, 640);
    access_at(LOAD, 4, 1280);
    expect_lines(1, 10, 0);
    cr_assert_eq(t.link.header->vcpu[1].ring_overflows, 1);
    cr_assert_eq(t.link.header->vcpu[1].loads_dropped, 1);
    cr_assert_eq(t.link.header->vcpu[1].stores, 16385);
    cr_assert_eq(t.link.header->vcpu[1].loads, 1);
}

Test(plugin, refuses_to_start_without_a_proper_link)
{
    const struct qemu_plugin_info user = {.target_name = "x86_64", .system_emulation = false};
    struct tw_error err;
    const struct tw_link_config config = {.kind = TW_LINK_MARK, .memory_bytes = MEMORY, .vcpus = 1};
    freopen("/dev/null", "w", stderr);
    cr_assert_neq(qemu_plugin_install(7, &user, 0, NULL), 0);
    cr_assert_neq(install_with(""), 0, "no RAM file");
    close(open(t.ram, O_RDWR | O_CREAT, 0600));
    cr_assert_neq(install_with(""), 0, "no link");
    cr_assert_eq(tw_link_create(t.link_path, &config, &t.link, &err), TW_OK);
    cr_assert_neq(install_with(""), 0, "one vCPU too many");
    t.link.header->vcpus = 2;
    cr_assert_eq(install_with(""), 0);
    t.link.header->version++;
    cr_assert_neq(install_with(""), 0, "another version");
    t.link.header->version--;
    cr_assert_neq(install_with("recheck=3"), 0, "no power of two");
    t.link.header->version++;
    t.link.header->version--;
    cr_assert_eq(truncate(t.link_path, 8192), 0);
    cr_assert_neq(install_with(""), 0, "cut short");
}
