/* Preloaded: the call number `fail_at` of those that a save makes fails, with the error `fail_with`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

int fail_at = 0, fail_with = ENOSPC, n_calls = 0;
const char* failed_call = "";

static int fails(const char* name) {
    if (!fail_at) return 0;
    if (++n_calls != fail_at) return 0;
    failed_call = name;
    errno = fail_with;
    return 1;
}

#define REAL(type, name, ...)                                        \
    static type (*real)(__VA_ARGS__);                                \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name); \
    if (fails(name)) return -1;

#define OPEN(name)                                          \
    int name(const char* path, int flags, ...) {            \
        va_list list;                                       \
        va_start(list, flags);                              \
        int mode = flags & O_CREAT ? va_arg(list, int) : 0; \
        va_end(list);                                       \
        REAL(int, #name, const char*, int, ...)             \
        return real(path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                         \
    int name(int folder, const char* path, int flags, ...) { \
        va_list list;                                        \
        va_start(list, flags);                               \
        int mode = flags & O_CREAT ? va_arg(list, int) : 0;  \
        va_end(list);                                        \
        REAL(int, #name, int, const char*, int, ...)         \
        return real(folder, path, flags, mode);              \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void* data, size_t n) {
    REAL(ssize_t, "write", int, const void*, size_t)
    return real(file, data, n);
}
struct iovec;
ssize_t writev(int file, const struct iovec* data, int n) {
    REAL(ssize_t, "writev", int, const struct iovec*, int)
    return real(file, data, n);
}
off_t lseek(int file, off_t offset, int from) {
    REAL(off_t, "lseek", int, off_t, int)
    return real(file, offset, from);
}
off64_t lseek64(int file, off64_t offset, int from) {
    REAL(off64_t, "lseek64", int, off64_t, int)
    return real(file, offset, from);
}
int ftruncate(int file, off_t n) {
    REAL(int, "ftruncate", int, off_t)
    return real(file, n);
}
int ftruncate64(int file, off64_t n) {
    REAL(int, "ftruncate64", int, off64_t)
    return real(file, n);
}
int fsync(int file) {
    REAL(int, "fsync", int)
    return real(file);
}
int flock(int file, int operation) {
    REAL(int, "flock", int, int)
    return real(file, operation);
}
int rename(const char* from, const char* to) {
    REAL(int, "rename", const char*, const char*)
    return real(from, to);
}
int unlink(const char* path) {
    REAL(int, "unlink", const char*)
    return real(path);
}
int chmod(const char* path, mode_t mode) {
    REAL(int, "chmod", const char*, mode_t)
    return real(path, mode);
}
int chown(const char* path, uid_t user, gid_t group) {
    REAL(int, "chown", const char*, uid_t, gid_t)
    return real(path, user, group);
}
int stat(const char* path, struct stat* found) {
    REAL(int, "stat", const char*, struct stat*)
    return real(path, found);
}
int lstat(const char* path, struct stat* found) {
    REAL(int, "lstat", const char*, struct stat*)
    return real(path, found);
}
int fstat(int file, struct stat* found) {
    REAL(int, "fstat", int, struct stat*)
    return real(file, found);
}
