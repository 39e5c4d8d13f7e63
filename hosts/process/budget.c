#include "hosts/process/process_impl.h"

#define INTERVAL_MIN    (1 * TW_MS)
#define INTERVAL_MAX    (30 * TW_SEC)
/* A fault costs a program more than the fault: cold page tables, and what it finds evicted from TLB
 * and caches. A loop of random stores over 256 MiB lost three times what the probe measures. */
#define FAULT_AFTERMATH 3

/* A pass costs the program one fault for each page that it protected and that is written again. If
 * these faults are to be `fault_permille` of its processor time, it must have used so much of it
 * before the next pass; how long that takes follows from how busy it was. A program that hardly
 * runs is taken to be busy for a hundredth of one processor. */
static double fault_pause(const struct tw_process_config *config, uint64_t fault_cost_ns,
                          uint64_t program_cpu_ns, uint64_t elapsed_ns)
{
    double busy = elapsed_ns ? (double)program_cpu_ns / (double)elapsed_ns : 1;
    if (busy < 0.01)
        busy = 0.01;
    return (double)fault_cost_ns * FAULT_AFTERMATH * 1000 / config->fault_permille / busy;
}

uint64_t tw_budget_interval_ns(const struct tw_process_config *config, uint64_t fault_cost_ns,
                               uint64_t own_cost_ns, uint64_t program_cpu_ns, uint64_t elapsed_ns)
{
    double pause = fault_pause(config, fault_cost_ns, program_cpu_ns, elapsed_ns);
    const double own = (double)own_cost_ns * 1000 / config->own_permille;
    if (own > pause)
        pause = own;
    if (pause < (double)INTERVAL_MIN)
        return INTERVAL_MIN;
    if (pause > (double)INTERVAL_MAX)
        return INTERVAL_MAX;
    return (uint64_t)pause;
}
