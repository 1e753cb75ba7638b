/* Preloaded into the service: while the file that SLOW_DISK names exists, a write to a regular file, or a flush
   of one, takes 200 ms, as on a card that wears out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void wait_if_slow(int file) {
  const char* flag = getenv("SLOW_DISK");
  struct stat kind;
  if (flag != NULL && access(flag, F_OK) == 0 && fstat(file, &kind) == 0 && S_ISREG(kind.st_mode)) usleep(200000);
}

ssize_t write(int file, const void* bytes, size_t count) {
  ssize_t (*real)(int, const void*, size_t) = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
  wait_if_slow(file);
  return real(file, bytes, count);
}

int fsync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  wait_if_slow(file);
  return real(file);
}

int fdatasync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  wait_if_slow(file);
  return real(file);
}
