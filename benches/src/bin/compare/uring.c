/* The raw copier over io_uring: two TAPs with offload, superframes pass as they are, a thread and a ring for each
 * direction. It answers one question (ADR 9): what fewer system calls per frame are worth at a TAP.
 *
 *   uring [-w] DEPTH NETNS IFNAME NETNS IFNAME
 *
 * DEPTH is how many frames a direction reads with one call at most, each into one of twice as many registered
 * buffers, out of which it is written. Writes and the next reads go to the kernel in one call, which also waits.
 * With -w DEPTH reads wait in the ring at all times, and each frame that comes wakes all of them. Without, one read
 * waits, and only while frames come do others go before it that do not wait: up to twice as many as have just come.
 * By system calls alone, without liburing. Says "ready" on standard output. No switch, and no VXLAN. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum {
    FRAME = 65536 + 4096, /* the longest that a TAP gives, and room: whole pages */
    DEEPEST = 512,
    FROM = 0, /* registered descriptors */
    TO = 1,
    READ = 0,
    WRITE = 1 << 16, /* in user_data, beside the number of the buffer: what the call was */
    PROBE = 1 << 17, /* a read that does not wait */
};

struct ring {
    int fd;
    unsigned *sq_tail, sq_mask, *cq_head, *cq_tail, cq_mask, queued;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

struct direction {
    int fds[2];
    unsigned depth, waiters; /* reads by one call, and those of them that wait */
};

static void die(const char *what)
{
    fprintf(stderr, "uring: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tap(const char *netns, const char *name)
{
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int here = open("/proc/self/ns/net", O_RDONLY), there = open(path, O_RDONLY);
    if (here < 0 || there < 0 || setns(there, CLONE_NEWNET))
        die(path);
    int fd = open("/dev/net/tun", O_RDWR);
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr))
        die("opening a TAP");
    if (ioctl(fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) && ioctl(fd, TUNSETOFFLOAD, tcp))
        die("TUNSETOFFLOAD");
    if (setns(here, CLONE_NEWNET))
        die("returning");
    close(here);
    close(there);
    return fd;
}

/* A ring of the calling thread, which alone may use it. */
static struct ring open_ring(unsigned entries)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    struct ring r = {.fd = (int)syscall(SYS_io_uring_setup, entries, &p)};
    if (r.fd < 0 && errno == EINVAL) { /* before Linux 6.1 */
        p = (struct io_uring_params){0};
        r.fd = (int)syscall(SYS_io_uring_setup, entries, &p);
    }
    if (r.fd < 0)
        die("this kernel has no io_uring, or has it switched off (kernel.io_uring_disabled)");
    if (!(p.features & IORING_FEAT_SINGLE_MMAP)) {
        errno = ENOTSUP;
        die("io_uring before Linux 5.4");
    }
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    const int access = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_POPULATE;
    uint8_t *rings = mmap(0, sq > cq ? sq : cq, access, kind, r.fd, IORING_OFF_SQ_RING);
    r.sqes = mmap(0, p.sq_entries * sizeof *r.sqes, access, kind, r.fd, IORING_OFF_SQES);
    if (rings == MAP_FAILED || r.sqes == MAP_FAILED)
        die("mapping a ring");
    r.sq_tail = (unsigned *)(rings + p.sq_off.tail);
    r.sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
    r.cq_head = (unsigned *)(rings + p.cq_off.head);
    r.cq_tail = (unsigned *)(rings + p.cq_off.tail);
    r.cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
    r.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
    for (unsigned i = 0; i < p.sq_entries; i++) /* each place of the ring is of the entry with its number, for ever */
        ((unsigned *)(rings + p.sq_off.array))[i] = i;
    return r;
}

/* Puts a call into the ring. There is always room: a buffer is in one call at a time. */
static void queue(struct ring *r, unsigned kind, uint16_t buffer, void *at, unsigned len)
{
    unsigned tail = *r->sq_tail;
    r->sqes[tail & r->sq_mask] = (struct io_uring_sqe){
        .opcode = kind == WRITE ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED,
        .fd = kind == WRITE ? TO : FROM,
        .rw_flags = kind == PROBE ? RWF_NOWAIT : 0,
        .flags = IOSQE_FIXED_FILE,
        .addr = (uintptr_t)at,
        .len = len,
        .off = (uint64_t)-1,
        .buf_index = buffer,
        .user_data = buffer | kind,
    };
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
    r->queued++;
}

static void *copy(void *argument)
{
    const struct direction *d = argument;
    const unsigned buffers = 2 * d->depth;
    struct ring r = open_ring(2 * buffers);
    uint8_t *memory = mmap(0, (size_t)buffers * FRAME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec iov[2 * DEEPEST];
    uint16_t spare[2 * DEEPEST];
    if (memory == MAP_FAILED)
        die("memory");
    for (unsigned i = 0; i < buffers; i++) {
        iov[i] = (struct iovec){memory + (size_t)i * FRAME, FRAME};
        spare[i] = (uint16_t)i;
    }
    if (syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, iov, buffers) ||
        syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_FILES, d->fds, 2))
        die("registering");
    unsigned spares = buffers, waiting = 0, writing = 0, probes = 0;
    for (;;) {
        unsigned now = writing, got = 0; /* a TAP takes a frame at once */
        for (; probes && spares > d->waiters; probes--, now++) {
            uint16_t buffer = spare[--spares];
            queue(&r, PROBE, buffer, iov[buffer].iov_base, FRAME);
        }
        for (; waiting < d->waiters && spares; waiting++) {
            uint16_t buffer = spare[--spares];
            queue(&r, READ, buffer, iov[buffer].iov_base, FRAME);
        }
        /* With no probe under way nothing is known to be there: then it waits for a frame. */
        unsigned until = now > writing ? now : now + 1;
        int sent = (int)syscall(SYS_io_uring_enter, r.fd, r.queued, until, IORING_ENTER_GETEVENTS, 0, 0);
        if (sent < 0 && errno != EINTR)
            die("io_uring_enter");
        r.queued -= sent > 0 ? (unsigned)sent : 0;
        unsigned head = *r.cq_head, tail = __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE);
        for (; head != tail; head++) {
            const struct io_uring_cqe *c = &r.cqes[head & r.cq_mask];
            uint16_t buffer = (uint16_t)c->user_data;
            unsigned kind = (unsigned)c->user_data & (WRITE | PROBE);
            if (c->res == -EBADFD)
                exit(0); /* the TAP's namespace is gone */
            waiting -= kind == READ;
            writing -= kind == WRITE; /* what the TAP refused is lost, as on any wire */
            if (kind == WRITE || c->res <= 0) {
                spare[spares++] = buffer;
                continue;
            }
            queue(&r, WRITE, buffer, iov[buffer].iov_base, (unsigned)c->res);
            writing++;
            got++;
        }
        __atomic_store_n(r.cq_head, head, __ATOMIC_RELEASE);
        if (d->waiters == 1 && d->depth > 1)
            probes = got < 2 ? got : 2 * got < d->depth ? 2 * got : d->depth - 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int all_wait = argc > 1 && !strcmp(argv[1], "-w");
    argv += all_wait;
    argc -= all_wait;
    long depth = argc == 6 ? strtol(argv[1], 0, 10) : 0;
    if (depth < 1 || depth > DEEPEST) {
        fputs("uring: wrong usage; see the head of uring.c\n", stderr);
        return 64;
    }
    int one = open_tap(argv[2], argv[3]), other = open_tap(argv[4], argv[5]);
    unsigned waiters = all_wait ? (unsigned)depth : 1;
    struct direction there = {{one, other}, (unsigned)depth, waiters}, back = {{other, one}, there.depth, waiters};
    close(open_ring(1).fd); /* so that a kernel without says so before all seems well */
    pthread_t thread;
    puts("ready");
    fflush(stdout);
    if (pthread_create(&thread, 0, copy, &back))
        die("a thread");
    copy(&there);
    return 0;
}
