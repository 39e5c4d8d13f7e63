/* The small guest's work: passes over its pages, each checked before it is written. */
#include "guests/sparse.h"
#include "guests/sparse/machine.h"

#include <stdbool.h>
#include <stddef.h>

#define BATCH           64u  /* pages between two looks at the clock */
#define BAD_PRINTED_MAX 16u  /* bad pages named on the serial port */
#define LAG_MS_MAX      100u /* behind its rate by more, the guest does not try to catch up */

struct multiboot_info {
    uint32_t flags, memory_lower_kib, memory_upper_kib, boot_device;
    const char *command_line;
};

/* What a pass needs, kept apart from the control block so that stores to it are few. */
struct work {
    volatile struct tw_sparse_control *control;
    enum tw_sparse_mode mode;
    uint32_t pages, iteration; /* of the pass under way, from 1 */
    uint32_t order_mask, order_shift;
    uint32_t batch, in_batch;
    uint64_t writes, bad;
    uint64_t batch_ticks, next_batch; /* rate limit; 0 = none */
    uint64_t last_look, last_status, gap_max;
};

void guest_main(const struct multiboot_info *info);

/* ---- Command line ---- */

static const char *option(const char *line, const char *name)
{
    for (; *line; line++) {
        const char *a = line, *b = name;
        while (*b && *a == *b)
            a++, b++;
        if (!*b && *a == '=')
            return a + 1;
        while (*line && *line != ' ')
            line++;
        if (!*line)
            break;
    }
    return NULL;
}

static uint32_t option_number(const char *line, const char *name)
{
    const char *text = option(line, name);
    uint32_t value = 0;
    while (text && *text >= '0' && *text <= '9')
        value = value * 10 + (uint32_t)(*text++ - '0');
    return value;
}

static uint32_t timer_hz(const char *line)
{
    uint32_t hz = option_number(line, "timer");
    if (hz == 0 || hz > MACHINE_TIMER_HZ_MAX)
        return MACHINE_TIMER_HZ_MAX;
    return hz < MACHINE_TIMER_HZ_MIN ? MACHINE_TIMER_HZ_MIN : hz;
}

static enum tw_sparse_mode option_mode(const char *line)
{
    const char *text = option(line, "mode");
    switch (text ? *text : 's') {
    case 'r':
        return TW_SPARSE_RANDOM;
    case 'd':
        return TW_SPARSE_DENSE;
    case 'i':
        return TW_SPARSE_IDLE;
    default:
        return TW_SPARSE_SEQUENTIAL;
    }
}

static const char *mode_name(enum tw_sparse_mode mode)
{
    static const char *const names[] = {"", "sparse", "random", "dense", "idle"};
    return names[mode];
}

/* ---- One page ---- */

static volatile uint32_t *memory(uint32_t address)
{
    return (volatile uint32_t *)address;
}

static void dense_write(uint32_t page, uint32_t generation)
{
    volatile uint32_t *words = memory(TW_SPARSE_DATA + page * TW_SPARSE_PAGE);
    for (uint32_t i = 0; i < TW_SPARSE_PAGE / 4; i++)
        words[i] = tw_sparse_dense(page, generation, i);
}

static bool dense_check(uint32_t page, uint32_t generation)
{
    volatile uint32_t *words = memory(TW_SPARSE_DATA + page * TW_SPARSE_PAGE);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < TW_SPARSE_PAGE / 4; i++)
        wrong |= words[i] ^ tw_sparse_dense(page, generation, i);
    return wrong == 0;
}

static void word_write(uint32_t page, uint32_t generation)
{
    volatile uint32_t *word = memory(tw_sparse_word(page));
    word[0] = tw_sparse_hash(page, generation);
    word[1] = generation;
}

static bool word_check(uint32_t page, uint32_t generation)
{
    volatile uint32_t *word = memory(tw_sparse_word(page));
    return word[0] == tw_sparse_hash(page, generation) && word[1] == generation;
}

static void report_bad(struct work *w, uint32_t page)
{
    w->bad++;
    w->control->bad = w->bad;
    if (w->bad > BAD_PRINTED_MAX)
        return;
    machine_print_number("BAD page=", page);
    machine_print_number(" expected=", w->iteration - 1);
    if (w->mode != TW_SPARSE_DENSE)
        machine_print_number(" found=", memory(tw_sparse_word(page))[1]);
    machine_print("\n");
}

static void visit(struct work *w, uint32_t page)
{
    bool dense = w->mode == TW_SPARSE_DENSE;
    if (!(dense ? dense_check(page, w->iteration - 1) : word_check(page, w->iteration - 1)))
        report_bad(w, page);
    if (dense)
        dense_write(page, w->iteration);
    else
        word_write(page, w->iteration);
    w->writes++;
}

/* ---- Time ---- */

static void status(const struct work *w, const char *label, uint64_t now)
{
    const volatile struct tw_sparse_control *c = w->control;
    uint32_t khz = c->tsc_khz;
    machine_print(label);
    machine_print_number("t=", machine_divide(machine_divide(now - c->start_tsc, khz), 1000));
    machine_print_number(" it=", c->iteration);
    machine_print_number(" writes=", w->writes);
    machine_print_number(" bad=", w->bad);
    machine_print_number(" gap_us=", machine_divide(w->gap_max * 1000, khz));
    machine_print("\n");
}

/* Publishes the counters, notes gaps, prints once a second, and obeys `stop`. */
static void look_at_clock(struct work *w)
{
    volatile struct tw_sparse_control *c = w->control;
    uint64_t now = machine_tsc();
    if (now - w->last_look > w->gap_max)
        c->gap_tsc_max = w->gap_max = now - w->last_look;
    w->last_look = now;
    c->now_tsc = now;
    c->writes = w->writes;
    if (now - w->last_status >= (uint64_t)c->tsc_khz * 1000) {
        w->last_status = now;
        status(w, "", now);
    }
    if (c->stop) {
        status(w, "STOP ", now);
        for (;;)
            __asm__ volatile("cli\n\thlt");
    }
}

static void end_batch(struct work *w)
{
    w->in_batch = 0;
    look_at_clock(w);
    if (w->batch_ticks == 0)
        return;
    w->next_batch += w->batch_ticks;
    uint64_t now = machine_tsc();
    if (now > w->next_batch + (uint64_t)w->control->tsc_khz * LAG_MS_MAX)
        w->next_batch = now;
    while (machine_tsc() < w->next_batch) {
        machine_wait();
        look_at_clock(w);
    }
}

/* ---- Passes ---- */

/* A permutation of [0, order_mask], another one in each pass. So in every mode a page is written
 * once a pass, and its expected generation is the number of the last pass. */
static uint32_t order(const struct work *w, uint32_t i)
{
    if (w->mode != TW_SPARSE_RANDOM)
        return i;
    uint32_t x = i + tw_sparse_hash(w->iteration, 1);
    for (unsigned round = 0; round < 2; round++) {
        x = x * 0x9E3779B1u & w->order_mask;
        x ^= x >> w->order_shift;
    }
    return x;
}

static void pass(struct work *w)
{
    uint32_t count = w->mode == TW_SPARSE_RANDOM ? w->order_mask + 1 : w->pages;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page = order(w, i);
        if (page >= w->pages)
            continue;
        visit(w, page);
        if (++w->in_batch == w->batch)
            end_batch(w);
    }
    w->control->iteration = w->iteration++;
}

static void idle(struct work *w)
{
    for (;;) {
        for (unsigned i = 0; i < 100; i++)
            machine_wait();
        look_at_clock(w);
    }
}

/* ---- Start ---- */

static uint32_t pages_that_fit(const struct multiboot_info *info)
{
    uint32_t end_page = (info->memory_upper_kib + 1024) / 4;
    uint32_t first_page = TW_SPARSE_DATA / TW_SPARSE_PAGE;
    return end_page > first_page ? end_page - first_page : 0;
}

static void set_rate(struct work *w, uint32_t rate)
{
    if (rate == 0)
        return;
    w->batch = rate / 100 < 1 ? 1 : rate / 100 < BATCH ? rate / 100 : BATCH;
    w->batch_ticks = machine_divide((uint64_t)w->control->tsc_khz * 1000 * w->batch, rate);
}

static void fill(const struct work *w, bool whole_pages)
{
    for (uint32_t page = 0; page < w->pages; page++) {
        if (whole_pages || w->mode == TW_SPARSE_DENSE)
            dense_write(page, 0);
        if (w->mode != TW_SPARSE_DENSE)
            word_write(page, 0);
    }
}

static void start(struct work *w, const char *line)
{
    volatile struct tw_sparse_control *c = w->control;
    *c = (struct tw_sparse_control){.mode = w->mode,
                                    .pages = w->pages,
                                    .rate = option_number(line, "rate"),
                                    .tsc_khz = machine_tsc_khz()};
    set_rate(w, c->rate);
    while (w->order_mask < w->pages - 1)
        w->order_mask = w->order_mask << 1 | 1, w->order_shift++;
    w->order_shift = w->order_shift / 2 + 1;
    fill(w, option_number(line, "fill") == 1);
    c->start_tsc = w->last_look = w->last_status = w->next_batch = machine_tsc();
    c->now_tsc = c->start_tsc;
    c->magic = TW_SPARSE_MAGIC;
    machine_print("READY mode=");
    machine_print(mode_name(w->mode));
    machine_print_number(" pages=", w->pages);
    machine_print_number(" tsc_khz=", c->tsc_khz);
    machine_print("\n");
}

void guest_main(const struct multiboot_info *info)
{
    static struct work w;
    const char *line = info->flags & 4 ? info->command_line : "";
    uint32_t fit = pages_that_fit(info), asked = option_number(line, "pages");
    machine_init(timer_hz(line));
    if (fit == 0 || asked > fit) {
        machine_print_number("ERROR pages: expected at most ", fit);
        machine_print_number(", given ", asked);
        machine_print("\n");
        return;
    }
    w = (struct work){.control = (volatile struct tw_sparse_control *)TW_SPARSE_CONTROL,
                      .mode = option_mode(line),
                      .pages = asked ? asked : fit,
                      .iteration = 1,
                      .batch = BATCH};
    start(&w, line);
    if (w.mode == TW_SPARSE_IDLE)
        idle(&w);
    for (;;)
        pass(&w);
}
