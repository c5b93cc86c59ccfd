/* Stands between a process and the C library (LD_PRELOAD), and has one chosen write fail.

   Every call that creates, writes, renames, removes or flushes something below one folder is
   counted, also those of C, C++ and Rust code. One of them fails with an error number, or ends the
   process as a kill does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define KILL (-1)

static char root[PATH_MAX];
static size_t root_length;
static atomic_long count;
static long chosen;
static int error, lasting;
static char fired[PATH_MAX + 64];

/* From now on, calls below `folder` are counted, and call `number` (from 1) fails with `reason`
   (KILL ends the process). `on`: so do all later ones that need room. */
void fault_arm(const char *folder, long number, int reason, int on) {
  root_length = strlen(folder);
  memcpy(root, folder, root_length + 1);
  fired[0] = 0;
  chosen = number;
  error = reason;
  lasting = on;
  count = 0;
}

/* Stop, and say how many calls there were. */
long fault_disarm(void) {
  root_length = 0;
  return count;
}

/* The call that failed, or nothing. */
const char *fault_fired(void) { return fired; }

static int fails(const char *call, const char *path, int needs_room) {
  long number = ++count;
  if (number != chosen && !(lasting && needs_room && chosen && number > chosen)) return 0;
  if (number == chosen) snprintf(fired, sizeof fired, "%s %s", call, path);
  if (error == KILL) _exit(137);
  errno = error;
  return 1;
}

static int below(const char *path) {
  return root_length && path && !strncmp(path, root, root_length);
}

static int path_fails(const char *call, int folder, const char *path, int needs_room) {
  char link[64], where[2 * PATH_MAX];
  if (!root_length || !path) return 0;
  if (path[0] == '/') return below(path) && fails(call, path, needs_room);
  ssize_t length;
  if (folder == AT_FDCWD) {
    if (!getcwd(where, PATH_MAX)) return 0;
    length = strlen(where);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, where, PATH_MAX - 1);
    if (length < 0) return 0;
  }
  snprintf(where + length, sizeof where - length, "/%s", path);
  return below(where) && fails(call, where, needs_room);
}

static int file_fails(const char *call, int file, int needs_room) {
  char link[64], where[PATH_MAX];
  if (!root_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, where, sizeof where - 1);
  if (length < 0) return 0;
  where[length] = 0;
  return below(where) && fails(call, where, needs_room);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name, folder, path, passed)                                     \
  {                                                                                 \
    mode_t mode = 0;                                                                \
    if (flags & (O_CREAT | O_TMPFILE)) {                                            \
      va_list rest;                                                                 \
      va_start(rest, flags);                                                        \
      mode = va_arg(rest, mode_t);                                                  \
      va_end(rest);                                                                 \
    }                                                                               \
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);              \
    if (writes && path_fails("open", folder, path, flags & O_CREAT)) return -1;     \
    return REAL(name) passed;                                                       \
  }
int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD, path, (path, flags, mode))
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD, path, (path, flags, mode))
int openat(int at, const char *path, int flags, ...)
    OPEN(openat, at, path, (at, path, flags, mode))
int openat64(int at, const char *path, int flags, ...)
    OPEN(openat64, at, path, (at, path, flags, mode))

#define PATH(type, name, parameters, at, path, passed, room)  \
  type name parameters {                                      \
    if (path_fails(#name, at, path, room)) return -1;         \
    return REAL(name) passed;                                 \
  }
PATH(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode), 1)
PATH(int, mkdirat, (int at, const char *path, mode_t mode), at, path, (at, path, mode), 1)
PATH(int, rmdir, (const char *path), AT_FDCWD, path, (path), 0)
PATH(int, unlink, (const char *path), AT_FDCWD, path, (path), 0)
PATH(int, unlinkat, (int at, const char *path, int flags), at, path, (at, path, flags), 0)
PATH(int, chmod, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode), 0)
PATH(int, symlink, (const char *to, const char *path), AT_FDCWD, path, (to, path), 1)
PATH(int, link, (const char *from, const char *path), AT_FDCWD, path, (from, path), 1)
PATH(int, rename, (const char *from, const char *path), AT_FDCWD, path, (from, path), 0)
PATH(int, renameat, (int of, const char *from, int at, const char *path), at, path,
     (of, from, at, path), 0)
PATH(int, renameat2, (int of, const char *from, int at, const char *path, unsigned flags), at, path,
     (of, from, at, path, flags), 0)

#define FD(type, name, parameters, passed, room)            \
  type name parameters {                                    \
    if (file_fails(#name, file, room)) return -1;           \
    return REAL(name) passed;                               \
  }
FD(ssize_t, write, (int file, const void *data, size_t size), (file, data, size), 1)
FD(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at), 1)
FD(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at),
   (file, data, size, at), 1)
FD(ssize_t, writev, (int file, const struct iovec *parts, int size), (file, parts, size), 1)
FD(ssize_t, pwritev, (int file, const struct iovec *parts, int size, off_t at),
   (file, parts, size, at), 1)
FD(ssize_t, pwritev64, (int file, const struct iovec *parts, int size, off64_t at),
   (file, parts, size, at), 1)
FD(int, fsync, (int file), (file), 0)
FD(int, fdatasync, (int file), (file), 0)
FD(int, ftruncate, (int file, off_t size), (file, size), 1)
FD(int, ftruncate64, (int file, off64_t size), (file, size), 1)
FD(int, fchmod, (int file, mode_t mode), (file, mode), 0)
FD(ssize_t, copy_file_range,
   (int from, off64_t *a, int file, off64_t *b, size_t size, unsigned flags),
   (from, a, file, b, size, flags), 1)
FD(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), (file, from, at, size), 1)
FD(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), (file, from, at, size), 1)
