/* LD_PRELOAD: every change of the file system below RECORD_ROOT is appended to RECORD_LOG, as it happens.

   A record is a line of words, and for writes the bytes after it:
     make FOLDER NAME INODE KIND    of a new file (f) or folder (d)      name ... of a second name (link)
     write INODE OFFSET LENGTH      size INODE LENGTH                    sync INODE
     move FOLDER NAME FOLDER NAME INODE KIND                             gone FOLDER NAME INODE KIND
   Files are told by their inodes: a file that is renamed while it is written to stays the same.
   A lock on the log, of all processes, keeps the records in the order of what they tell of. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = dlsym(RTLD_NEXT, name)

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static int log_ = -1;
static char root_[PATH_MAX];

static int begin(void) {
  if (log_ < 0) {
    const char *path = getenv("RECORD_LOG"), *root = getenv("RECORD_ROOT");
    if (!path || !root) return 0;
    REAL(int, "open64", const char *, int, ...);
    snprintf(root_, sizeof root_, "%s", root);
    log_ = real(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }
  pthread_mutex_lock(&one);
  flock(log_, LOCK_EX);
  return 1;
}

static void end(void) {
  int kept = errno;
  flock(log_, LOCK_UN);
  pthread_mutex_unlock(&one);
  errno = kept;
}

static void say(const char *line, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (real(log_, line, strlen(line)) < 0 || (size && real(log_, data, size) < 0)) abort();
}

static int below(const char *path) {
  size_t n = strlen(root_);
  return !strncmp(path, root_, n) && (path[n] == '/' || path[n] == 0);
}

/* The path of a descriptor, or of a name in an open folder. */
static int of_fd(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, out, PATH_MAX - 1);
  out[n < 0 ? 0 : n] = 0;
  return n > 0 && below(out);
}

static int of_name(int at, const char *name, char *out) {
  char here[PATH_MAX];
  if (name[0] == '/') snprintf(out, PATH_MAX, "%s", name);
  else {
    if (at == AT_FDCWD) { if (!getcwd(here, sizeof here)) return 0; }
    else of_fd(at, here);
    snprintf(out, PATH_MAX, "%.2000s/%.2000s", here, name);
  }
  return below(out);
}

/* The folder's inode, and the last part of the path. */
static unsigned long parent(const char *path, const char **name) {
  char folder[PATH_MAX];
  struct stat found;
  snprintf(folder, sizeof folder, "%s", path);
  char *slash = strrchr(folder, '/');
  *name = path + (slash - folder) + 1;
  *slash = 0;
  return stat(folder, &found) ? 0 : (unsigned long)found.st_ino;
}

static void named(const char *what, const char *path) {
  char line[2 * PATH_MAX];
  const char *name;
  struct stat found;
  if (lstat(path, &found)) return;
  unsigned long folder = parent(path, &name);
  snprintf(line, sizeof line, "%s %lu %s %lu %c\n", what, folder, name, (unsigned long)found.st_ino,
           S_ISDIR(found.st_mode) ? 'd' : 'f');
  say(line, NULL, 0);
}

static void sized(const char *what, int fd, long number) {
  char line[128];
  struct stat found;
  if (fstat(fd, &found)) return;
  snprintf(line, sizeof line, "%s %lu %ld\n", what, (unsigned long)found.st_ino, number);
  say(line, NULL, 0);
}

static void wrote(int fd, long offset, const void *data, size_t size) {
  char line[128];
  struct stat found;
  if (fstat(fd, &found)) return;
  snprintf(line, sizeof line, "write %lu %ld %zu\n", (unsigned long)found.st_ino, offset, size);
  say(line, data, size);
}

static int opened(int (*real)(int, const char *, int, ...), int at, const char *name, int flags, int mode) {
  char path[PATH_MAX];
  struct stat before;
  if (!(flags & (O_CREAT | O_TRUNC)) || !begin()) return real(at, name, flags, mode);
  int mine = of_name(at, name, path), was = mine && !lstat(path, &before);
  int fd = real(at, name, flags, mode);
  if (mine && fd >= 0) {
    if (!was) named("make", path);
    else if (flags & O_TRUNC) sized("size", fd, 0);
  }
  end();
  return fd;
}

#define OPEN(symbol, like) \
  int symbol(const char *name, int flags, ...) { \
    REAL(int, like, int, const char *, int, ...); \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    return opened(real, AT_FDCWD, name, flags, mode); }
#define OPENAT(symbol, like) \
  int symbol(int at, const char *name, int flags, ...) { \
    REAL(int, like, int, const char *, int, ...); \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    return opened(real, at, name, flags, mode); }
OPEN(open, "openat64")
OPEN(open64, "openat64")
OPENAT(openat, "openat64")
OPENAT(openat64, "openat64")

#define AROUND_FD(fd, call, told) \
  char path[PATH_MAX]; \
  if (!begin()) return call; \
  int mine = of_fd(fd, path); \
  long done = call; \
  if (mine && done >= 0) { told; } \
  end(); \
  return done;

static void wrote_parts(int fd, long offset, const struct iovec *parts, int count, long done) {
  for (int i = 0; i < count && done > 0; i++) {
    size_t size = (long)parts[i].iov_len < done ? parts[i].iov_len : (size_t)done;
    if (size) wrote(fd, offset, parts[i].iov_base, size);
    offset += size;
    done -= size;
  }
}

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  AROUND_FD(fd, real(fd, data, size), wrote(fd, lseek(fd, 0, SEEK_CUR) - done, data, done))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
  AROUND_FD(fd, real(fd, data, size, at), wrote(fd, at, data, done))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, "writev", int, const struct iovec *, int);
  AROUND_FD(fd, real(fd, parts, count),
            wrote_parts(fd, lseek(fd, 0, SEEK_CUR) - done, parts, count, done))
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) {
  REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
  AROUND_FD(fd, real(fd, parts, count, at), wrote_parts(fd, at, parts, count, done))
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return pwritev64(fd, parts, count, at);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
  REAL(ssize_t, "pwritev64v2", int, const struct iovec *, int, off_t, int);
  AROUND_FD(fd, real(fd, parts, count, at, flags), wrote_parts(fd, at, parts, count, done))
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
  return pwritev64v2(fd, parts, count, at, flags);
}
int ftruncate64(int fd, off_t size) {
  REAL(int, "ftruncate64", int, off_t);
  AROUND_FD(fd, real(fd, size), sized("size", fd, size))
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fsync(int fd) {
  REAL(int, "fsync", int);
  AROUND_FD(fd, real(fd), sized("sync", fd, 0))
}
int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  AROUND_FD(fd, real(fd), sized("sync", fd, 0))
}

int renameat(int at, const char *from, int to, const char *name) {
  REAL(int, "renameat", int, const char *, int, const char *);
  char old[PATH_MAX], new[PATH_MAX], line[3 * PATH_MAX];
  const char *a, *b;
  struct stat found;
  if (!begin()) return real(at, from, to, name);
  int mine = of_name(at, from, old) | of_name(to, name, new);
  mine = mine && !lstat(old, &found);
  unsigned long before = mine ? parent(old, &a) : 0, after = mine ? parent(new, &b) : 0;
  int status = real(at, from, to, name);
  if (mine && !status) {
    snprintf(line, sizeof line, "move %lu %s %lu %s %lu %c\n", before, a, after, b,
             (unsigned long)found.st_ino, S_ISDIR(found.st_mode) ? 'd' : 'f');
    say(line, NULL, 0);
  }
  end();
  return status;
}
int rename(const char *from, const char *name) { return renameat(AT_FDCWD, from, AT_FDCWD, name); }

int linkat(int at, const char *from, int to, const char *name, int flags) {
  REAL(int, "linkat", int, const char *, int, const char *, int);
  char new[PATH_MAX];
  if (!begin()) return real(at, from, to, name, flags);
  int mine = of_name(to, name, new), status = real(at, from, to, name, flags);
  if (mine && !status) named("name", new);
  end();
  return status;
}
int link(const char *from, const char *name) { return linkat(AT_FDCWD, from, AT_FDCWD, name, 0); }

int unlinkat(int at, const char *name, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  char path[PATH_MAX], line[2 * PATH_MAX];
  const char *last;
  struct stat found;
  if (!begin()) return real(at, name, flags);
  int mine = of_name(at, name, path) && !lstat(path, &found);
  unsigned long folder = mine ? parent(path, &last) : 0;
  int status = real(at, name, flags);
  if (mine && !status) {
    snprintf(line, sizeof line, "gone %lu %s %lu %c\n", folder, last, (unsigned long)found.st_ino,
             S_ISDIR(found.st_mode) ? 'd' : 'f');
    say(line, NULL, 0);
  }
  end();
  return status;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
  struct stat found;
  return unlinkat(AT_FDCWD, name, !lstat(name, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

int mkdirat(int at, const char *name, mode_t mode) {
  REAL(int, "mkdirat", int, const char *, mode_t);
  char path[PATH_MAX];
  if (!begin()) return real(at, name, mode);
  int mine = of_name(at, name, path), status = real(at, name, mode);
  if (mine && !status) named("make", path);
  end();
  return status;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
