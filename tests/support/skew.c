/* Loaded before a program: moves the time of day that it is told, and no other clock.

   DURUM_SKEW_FILE names a file of eight bytes: by how many seconds, signed. It is looked at on every reading,
   so whoever writes the file sets the clock of a running process. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *skew_s;

__attribute__((constructor)) static void find(void)
{
    const char *path = getenv("DURUM_SKEW_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *found = mmap(NULL, sizeof *skew_s, PROT_READ, MAP_SHARED, file, 0);
        if (found != MAP_FAILED)
            skew_s = found;
        close(file);
    }
}

int clock_gettime(clockid_t which, struct timespec *when)
{
    int failed = (int)syscall(SYS_clock_gettime, which, when);
    if (!failed && skew_s && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        when->tv_sec += *skew_s;
    return failed;
}

int gettimeofday(struct timeval *restrict when, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    when->tv_sec = now.tv_sec;
    when->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *when)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (when)
        *when = now.tv_sec;
    return now.tv_sec;
}
