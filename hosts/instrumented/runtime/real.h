/* The functions of libc (or of whoever stands before it, such as another allocator) behind those
 * that the runtime puts itself in front of. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_REAL_H
#define TOWLINE_HOSTS_INSTRUMENTED_REAL_H

#include <dlfcn.h>
#include <stdlib.h>

/* Never NULL: a program that was linked with the name has it. */
static inline void *tw_real_find(const char *name, void **slot)
{
    void *found = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if (found == NULL) {
        found = dlsym(RTLD_NEXT, name);
        if (found == NULL)
            abort();
        __atomic_store_n(slot, found, __ATOMIC_RELAXED);
    }
    return found;
}

#define tw_real(name)                                                                              \
    __extension__({                                                                                \
        static void *slot;                                                                         \
        (__typeof__(&name))tw_real_find(#name, &slot);                                             \
    })

#endif
