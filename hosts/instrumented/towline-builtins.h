/* towline-cc puts this before what gcc compiles: gcc turns these built-ins into plain stores after
 * it has instrumented everything else, so they go by the runtime's functions. */
#ifndef TOWLINE_BUILTINS_H
#define TOWLINE_BUILTINS_H

#ifndef __ASSEMBLER__
#ifdef __cplusplus
extern "C" {
#endif
void *__tsan_memcpy(void *, const void *, __SIZE_TYPE__);
void *__tsan_memmove(void *, const void *, __SIZE_TYPE__);
void *__tsan_memset(void *, int, __SIZE_TYPE__);
#ifdef __cplusplus
}
#endif
#define __builtin_memcpy  __tsan_memcpy
#define __builtin_memmove __tsan_memmove
#define __builtin_memset  __tsan_memset
#endif

#endif
