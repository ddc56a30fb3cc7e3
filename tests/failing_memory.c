/* Preloaded: allocation number `fail_at` fails, of all that are made by malloc and its kin, also of C++ and,
   with PYTHONMALLOC=malloc, of Python. `live` is how many there are. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>

int fail_at = 0, n_calls = 0;
long live = 0;

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
extern void __libc_free(void*);

static int fails(void) {
    if (!fail_at || ++n_calls != fail_at) return 0;
    errno = ENOMEM;
    return 1;
}

static void* counted(void* made) {
    live += made != NULL;
    return made;
}

void* malloc(size_t n) {
    return fails() ? NULL : counted(__libc_malloc(n));
}
void* calloc(size_t n, size_t size) {
    return fails() ? NULL : counted(__libc_calloc(n, size));
}
void* realloc(void* before, size_t n) {
    if (fails()) return NULL;
    return before ? __libc_realloc(before, n) : counted(__libc_malloc(n));
}
void* memalign(size_t alignment, size_t n) {
    return fails() ? NULL : counted(__libc_memalign(alignment, n));
}
void* aligned_alloc(size_t alignment, size_t n) {
    return memalign(alignment, n);
}
int posix_memalign(void** made, size_t alignment, size_t n) {
    *made = memalign(alignment, n);
    return *made ? 0 : ENOMEM;
}
void free(void* memory) {
    live -= memory != NULL;
    __libc_free(memory);
}
