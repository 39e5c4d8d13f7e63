/* Which objects of the program are not instrumented. An instrumented one asks the dynamic linker
 * for __tsan_init; the program itself carries the runtime and is judged when it is linked. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <elf.h>
#include <link.h>
#include <string.h>

struct dynamic {
    const char *strings;
    size_t strings_size;
};

static struct dynamic read_dynamic(const struct dl_phdr_info *info, const ElfW(Dyn) * entry)
{
    struct dynamic d = {0};
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_STRTAB) /* relocated already, except in the vdso */
            d.strings = (const char *)(entry->d_un.d_ptr < info->dlpi_addr
                                           ? entry->d_un.d_ptr + info->dlpi_addr
                                           : entry->d_un.d_ptr);
        if (entry->d_tag == DT_STRSZ)
            d.strings_size = entry->d_un.d_val;
    }
    return d;
}

static bool is_instrumented(const struct dl_phdr_info *info)
{
    static const char wanted[] = "__tsan_init"; /* with its zero */
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC)
            continue;
        const struct dynamic d =
            read_dynamic(info, (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr));
        return d.strings && memmem(d.strings, d.strings_size, wanted, sizeof wanted);
    }
    return false;
}

struct listing {
    struct tw_inst_header *header;
    uint32_t count;
};

static int list(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    struct listing *listing = context;
    const char *name = info->dlpi_name;
    if (name[0] == 0 || strncmp(name, "linux-vdso", 10) == 0 || is_instrumented(info))
        return 0;
    if (listing->count < TW_INST_OBJECTS_MAX) {
        struct tw_inst_object *object = &listing->header->objects[listing->count];
        const size_t length = strlen(name);
        const size_t skip = length >= sizeof object->name ? length - (sizeof object->name - 1) : 0;
        object->base = info->dlpi_addr;
        strncpy(object->name, name + skip, sizeof object->name - 1);
    }
    listing->count++;
    return 0;
}

void tw_rt_objects_scan(void)
{
    if (tw_rt_mode() == TW_INST_DETACHED)
        return;
    struct listing listing = {.header = (struct tw_inst_header *)(void *)tw_rt.base};
    dl_iterate_phdr(list, &listing);
    __atomic_store_n(&listing.header->object_count, listing.count, __ATOMIC_RELEASE);
}

/* What is loaded later is looked at then. */
TW_RT_EXPORT void *dlopen(const char *path, int flags)
{
    void *handle = tw_real(dlopen)(path, flags);
    if (handle)
        tw_rt_objects_scan();
    return handle;
}
