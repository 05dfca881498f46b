/* What a TAP and a UDP socket can carry when nobody thinks in between: the limit that the comparison measures
 * switches against. It knows no address and no VLAN: what one end gives, the other gets.
 *
 *   copier [-o] pods  NETNS IFNAME NETNS IFNAME            two TAPs, one thread per direction
 *   copier [-o] nodes NETNS IFNAME LOCAL REMOTE VNI        a TAP and VXLAN (RFC 7348) over UDP port 4789, IPv4
 *   copier -q   pods  …                                    with offload, two queues per TAP, a thread for each
 *
 * Without -o one read and one write per frame. With -o the TAP has checksum and segmentation offload: between
 * TAPs superframes pass as they are; towards UDP they are cut in trains (UDP_SEGMENT), checksums finished, no
 * payload copied; from UDP, trains (UDP_GRO) are merged again. Says "ready" on standard output. No switch. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum {
    VNET = sizeof(struct virtio_net_hdr),
    FRAME = 65536 + 64,           /* the longest that a TAP gives, and room */
    VXLAN = 8,
    HEADERS = 192,                /* VXLAN, Ethernet, IP and TCP headers of a segment */
    SEGMENTS = 64,                /* of one train: UDP_MAX_SEGMENTS of older kernels */
    TRAIN = 65507,                /* bytes of one train */
    MESSAGES = 16,                /* of one recvmmsg */
    FRAMES = MESSAGES * SEGMENTS, /* of one recvmmsg, cut up */
};

static int offload, multiqueue;
static uint8_t vxlan[VXLAN] = {0x08};

static void die(const char *what)
{
    fprintf(stderr, "copier: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tap(const char *netns, const char *name, unsigned features)
{
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int here = open("/proc/self/ns/net", O_RDONLY), there = open(path, O_RDONLY);
    if (here < 0 || there < 0 || setns(there, CLONE_NEWNET))
        die(path);
    int fd = open("/dev/net/tun", O_RDWR);
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0) |
                                      (multiqueue ? IFF_MULTI_QUEUE : 0)};
    strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr))
        die("opening a TAP");
    if (offload && ioctl(fd, TUNSETOFFLOAD, features) &&
        ioctl(fd, TUNSETOFFLOAD, features & ~(unsigned)(TUN_F_USO4 | TUN_F_USO6)))
        die("TUNSETOFFLOAD");
    if (setns(here, CLONE_NEWNET))
        die("returning");
    close(here);
    close(there);
    return fd;
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, (uint16_t)(v >> 16)), put16(p + 2, (uint16_t)v); }

/* The ones' complement sum of bytes (RFC 1071), in the machine's byte order; wide, so that it vectorises. */
static uint64_t sum(const uint8_t *p, size_t len)
{
    uint64_t total = 0;
    size_t i = 0;
    for (; i + 4 <= len; i += 4) {
        uint32_t word;
        memcpy(&word, p + i, 4);
        total += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, p + i, len - i);
    return total + rest;
}

/* The sum folded to 16 bits, as it stands in a header (not complemented). */
static uint16_t fold(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return ntohs((uint16_t)total);
}

/* The sum of the pseudo header of a packet whose IP header is at `ip`. */
static uint64_t pseudo(const uint8_t *ip, uint8_t protocol, size_t len)
{
    uint64_t addresses = ip[0] >> 4 == 4 ? sum(ip + 12, 8) : sum(ip + 8, 32);
    return addresses + htons((uint16_t)len) + htons(protocol);
}

/* One train of equal datagrams, the last of which may be shorter, each of a header and a slice of payload. */
struct train {
    int socket;
    size_t count, size, bytes, pieces;
    int closed;
    struct iovec iov[2 * SEGMENTS];
    uint8_t headers[SEGMENTS][HEADERS];
};

static void depart(struct train *t)
{
    if (!t->count)
        return;
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = t->iov, .msg_iovlen = t->pieces};
    if (t->count > 1) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        uint16_t size = (uint16_t)t->size;
        memcpy(CMSG_DATA(c), &size, sizeof size);
    }
    sendmsg(t->socket, &message, 0); /* what the socket refuses is lost, as on any wire */
    t->count = t->bytes = t->pieces = 0;
    t->closed = 0;
}

/* Room for the headers of the next datagram, which will have `size` bytes in all. */
static uint8_t *board(struct train *t, size_t size)
{
    if (t->count && (t->closed || size > t->size || t->count == SEGMENTS || t->bytes + size > TRAIN))
        depart(t);
    if (!t->count)
        t->size = size;
    t->closed = size < t->size;
    t->bytes += size;
    return t->headers[t->count];
}

static void seat(struct train *t, size_t header, const uint8_t *payload, size_t len)
{
    t->iov[t->pieces++] = (struct iovec){t->headers[t->count++], header};
    if (len)
        t->iov[t->pieces++] = (struct iovec){(void *)payload, len};
}

/* Cuts a superframe (TSO) into frames of `mss` bytes of payload. */
static void cut(struct train *t, uint8_t *frame, size_t len, size_t tcp, size_t mss)
{
    uint8_t *ip = frame + 14;
    int v4 = ip[0] >> 4 == 4;
    size_t header = tcp + (frame[tcp + 12] >> 4) * 4u, left = len - header;
    uint32_t seq = get32(frame + tcp + 4);
    uint16_t id = get16(ip + 4);
    uint8_t flags = frame[tcp + 13];
    if (VXLAN + header > HEADERS)
        return;
    for (size_t at = header; left; at += mss, seq += (uint32_t)mss) {
        size_t part = left < mss ? left : mss;
        left -= part;
        uint8_t *to = board(t, VXLAN + header + part), *inner = to + VXLAN;
        memcpy(to, vxlan, VXLAN);
        memcpy(inner, frame, header);
        uint8_t *h = inner + tcp;
        put32(h + 4, seq);
        /* FIN and PSH belong to the last, CWR to the first. */
        h[13] = (uint8_t)(flags & ~((left ? 0x09 : 0) | (at == header ? 0 : 0x80)));
        size_t segment = header - tcp + part;
        if (v4) {
            put16(inner + 14 + 2, (uint16_t)(header - 14 + part));
            put16(inner + 14 + 4, id++);
            put16(inner + 14 + 10, 0);
            put16(inner + 14 + 10, (uint16_t)~fold(sum(inner + 14, tcp - 14)));
        } else {
            put16(inner + 14 + 4, (uint16_t)(header - 54 + part));
        }
        put16(h + 16, 0);
        /* Headers have even lengths, so that the payload's sum may simply be added. */
        put16(h + 16, (uint16_t)~fold(pseudo(inner + 14, IPPROTO_TCP, segment) +
                                      sum(h, header - tcp) + sum(frame + at, part)));
        seat(t, VXLAN + header, frame + at, part);
    }
}

static void *tap_to_udp_trains(void *argument)
{
    int *fds = argument;
    static struct train t;
    static uint8_t arena[4 * FRAME] __attribute__((aligned(64)));
    t.socket = fds[1];
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    for (size_t used = 0;;) {
        uint8_t *frame = arena + used + VNET;
        ssize_t got = used + FRAME > sizeof arena ? -1 : read(fds[0], arena + used, FRAME);
        if (got <= VNET) {
            /* Nothing more, or no room: send what there is. */
            depart(&t);
            if (!used)
                poll(&(struct pollfd){.fd = fds[0], .events = POLLIN}, 1, -1);
            used = 0;
            continue;
        }
        struct virtio_net_hdr h;
        memcpy(&h, arena + used, VNET);
        size_t len = (size_t)got - VNET;
        used = (used + (size_t)got + 63) & ~(size_t)63;
        if (h.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
            cut(&t, frame, len, h.csum_start, h.gso_size);
            continue;
        }
        if (h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
            /* The field holds the pseudo header's sum; 0 means "none" to UDP. */
            uint16_t whole = (uint16_t)~fold(sum(frame + h.csum_start, len - h.csum_start));
            put16(frame + h.csum_start + h.csum_offset, whole ? whole : 0xffff);
        }
        memcpy(board(&t, VXLAN + len), vxlan, VXLAN);
        seat(&t, VXLAN, frame, len);
    }
    return 0;
}

struct frame {
    uint8_t *at;
    size_t len;
};

/* A TCP segment that may be part of a superframe: where its TCP header is, and where its payload; 0 if none. */
static size_t mergeable(const struct frame *f, size_t *tcp)
{
    const uint8_t *ip = f->at + 14;
    if (f->len < 54)
        return 0;
    uint16_t type = get16(f->at + 12);
    size_t end;
    if (type == 0x0800 && ip[0] == 0x45 && ip[9] == IPPROTO_TCP && !(get16(ip + 6) & 0x3fff))
        *tcp = 34, end = 14u + get16(ip + 2);
    else if (type == 0x86dd && ip[6] == IPPROTO_TCP && f->len >= 74)
        *tcp = 54, end = 54u + get16(ip + 4);
    else
        return 0;
    size_t header = *tcp + (f->at[*tcp + 12] >> 4) * 4u;
    /* ACK, perhaps with PSH; no padding. */
    return end == f->len && header < f->len && (f->at[*tcp + 13] & ~0x08) == 0x10 ? header : 0;
}

/* Whether `b` goes on where `a`, `so_far` bytes of payload long by now, ends. */
static int goes_on(const struct frame *a, const struct frame *b, size_t tcp, size_t header, size_t so_far)
{
    const uint8_t *x = a->at, *y = b->at;
    int addresses = tcp == 34 ? !memcmp(x, y, 16) && !memcmp(x + 20, y + 20, 4) && !memcmp(x + 26, y + 26, 8)
                              : !memcmp(x, y, 18) && !memcmp(x + 20, y + 20, 34);
    return addresses && !memcmp(x + tcp, y + tcp, 4) && get32(x + tcp + 4) + so_far == get32(y + tcp + 4) &&
           !memcmp(x + tcp + 8, y + tcp + 8, 5) && !memcmp(x + tcp + 14, y + tcp + 14, 2) &&
           !memcmp(x + tcp + 18, y + tcp + 18, header - tcp - 18);
}

/* Writes the frames, runs of one TCP stream as one superframe. */
static void merge(int tap, struct frame *frames, size_t count)
{
    struct virtio_net_hdr h;
    struct iovec iov[SEGMENTS + 2];
    for (size_t i = 0; i < count;) {
        struct frame *first = &frames[i];
        size_t tcp = 0, header = mergeable(first, &tcp), mss = first->len - header, payload = mss, n = 1;
        while (header && i + n < count && n < SEGMENTS && !(first->at[tcp + 13] & 0x08)) {
            struct frame *next = &frames[i + n];
            size_t its_tcp, part = next->len - header;
            if (mergeable(next, &its_tcp) != header || its_tcp != tcp || part > mss ||
                header - 14 + payload + part > 65535 || !goes_on(first, next, tcp, header, payload))
                break;
            first->at[tcp + 13] |= next->at[tcp + 13]; /* PSH ends it */
            iov[n + 1] = (struct iovec){next->at + header, part};
            payload += part;
            n++;
            if (part < mss)
                break;
        }
        memset(&h, 0, sizeof h);
        iov[0] = (struct iovec){&h, VNET};
        iov[1] = (struct iovec){first->at, first->len};
        if (n > 1) {
            uint8_t *ip = first->at + 14;
            size_t segment = header - tcp + payload;
            h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            h.gso_type = tcp == 34 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
            h.hdr_len = (uint16_t)header;
            h.gso_size = (uint16_t)mss;
            h.csum_start = (uint16_t)tcp;
            h.csum_offset = 16;
            if (tcp == 34) {
                put16(ip + 2, (uint16_t)(header - 14 + payload));
                put16(ip + 10, 0);
                put16(ip + 10, (uint16_t)~fold(sum(ip, 20)));
            } else {
                put16(ip + 4, (uint16_t)segment);
            }
            put16(first->at + tcp + 16, fold(pseudo(ip, IPPROTO_TCP, segment)));
        }
        if (writev(tap, iov, (int)n + 1) < 0 && errno == EBADFD)
            exit(0);
        i += n;
    }
}

static void *udp_to_tap_trains(void *argument)
{
    int *fds = argument;
    static uint8_t buffers[MESSAGES][FRAME];
    static struct frame frames[FRAMES];
    static char controls[MESSAGES][64] __attribute__((aligned(8)));
    struct mmsghdr messages[MESSAGES];
    struct iovec iovs[MESSAGES];
    for (;;) {
        for (int i = 0; i < MESSAGES; i++) {
            iovs[i] = (struct iovec){buffers[i], FRAME};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1,
                .msg_control = controls[i], .msg_controllen = sizeof controls[i]};
        }
        int got = recvmmsg(fds[1], messages, MESSAGES, MSG_WAITFORONE, 0);
        size_t count = 0;
        for (int i = 0; i < got; i++) {
            struct msghdr *m = &messages[i].msg_hdr;
            size_t len = messages[i].msg_len, size = len;
            for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
                if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
                    int gro;
                    memcpy(&gro, CMSG_DATA(c), sizeof gro);
                    size = (size_t)gro;
                }
            for (size_t at = 0; at + VXLAN + 14 < len && size && count < FRAMES; at += size) {
                size_t one = len - at < size ? len - at : size;
                frames[count++] = (struct frame){buffers[i] + at + VXLAN, one - VXLAN};
            }
        }
        merge(fds[0], frames, count);
    }
    return 0;
}

/* One call in, one call out. `skip` bytes of the front are not passed on, `wrap` bytes are put before. */
static void copy(int from, int to, size_t skip, size_t wrap)
{
    uint8_t buffer[VXLAN + FRAME];
    memcpy(buffer, vxlan, VXLAN);
    for (;;) {
        ssize_t got = read(from, buffer + wrap, FRAME);
        if (got < 0 && errno == EBADFD)
            exit(0); /* the TAP's namespace is gone */
        if (got > (ssize_t)skip)
            (void)!write(to, buffer + skip, wrap + (size_t)got - skip);
    }
}

static void *tap_to_tap(void *fds) { copy(((int *)fds)[0], ((int *)fds)[1], 0, 0); return 0; }
static void *tap_to_udp(void *fds) { copy(((int *)fds)[0], ((int *)fds)[1], 0, VXLAN); return 0; }
static void *udp_to_tap(void *fds) { copy(((int *)fds)[1], ((int *)fds)[0], VXLAN, 0); return 0; }

static int open_udp(const char *local, const char *remote)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), queue = 4 << 20, on = 1;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(4789)};
    inet_pton(AF_INET, local, &name.sin_addr);
    if (bind(fd, (struct sockaddr *)&name, sizeof name))
        die("binding UDP port 4789");
    inet_pton(AF_INET, remote, &name.sin_addr);
    if (connect(fd, (struct sockaddr *)&name, sizeof name))
        die("connecting");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    if (offload && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on))
        die("UDP_GRO");
    return fd;
}

int main(int argc, char **argv)
{
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    multiqueue = argc > 1 && !strcmp(argv[1], "-q");
    offload = multiqueue || (argc > 1 && !strcmp(argv[1], "-o"));
    argv += offload;
    argc -= offload;
    int fds[2], back[2], queue[2], queue_back[2];
    pthread_t thread;
    void *(*there)(void *), *(*here)(void *);
    if (argc == 6 && !strcmp(argv[1], "pods")) {
        fds[0] = open_tap(argv[2], argv[3], tcp | TUN_F_USO4 | TUN_F_USO6);
        fds[1] = open_tap(argv[4], argv[5], tcp | TUN_F_USO4 | TUN_F_USO6);
        back[0] = fds[1], back[1] = fds[0];
        there = here = tap_to_tap;
        if (multiqueue) {
            queue[0] = queue_back[1] = open_tap(argv[2], argv[3], tcp | TUN_F_USO4 | TUN_F_USO6);
            queue[1] = queue_back[0] = open_tap(argv[4], argv[5], tcp | TUN_F_USO4 | TUN_F_USO6);
            if (pthread_create(&thread, 0, there, queue) || pthread_create(&thread, 0, here, queue_back))
                die("a thread");
        }
    } else if (argc == 7 && !strcmp(argv[1], "nodes")) {
        fds[0] = open_tap(argv[2], argv[3], tcp);
        fds[1] = open_udp(argv[4], argv[5]);
        put32(vxlan + 4, (uint32_t)atoi(argv[6]) << 8);
        back[0] = fds[0], back[1] = fds[1];
        there = offload ? tap_to_udp_trains : tap_to_udp;
        here = offload ? udp_to_tap_trains : udp_to_tap;
    } else {
        fputs("copier: wrong usage; see the head of copier.c\n", stderr);
        return 64;
    }
    puts("ready");
    fflush(stdout);
    if (pthread_create(&thread, 0, here, back))
        die("a thread");
    there(fds);
    return 0;
}
