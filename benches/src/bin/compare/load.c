/* Load for the comparison: UDP datagrams as fast as one thread can send them or at a rate, counted at the other
 * end; round trips; raw Ethernet frames from and to many stations. Runs inside pods. Results are one JSON object on
 * standard output.
 *
 *   load send ADDRESS PORT MILLISECONDS RATE PAYLOAD FLOWS    RATE per second, 0: no limit
 *   load receive PORT MILLISECONDS FLOWS                      says "ready"; after SIGTERM ends when no more come
 *   load echo PORT                                            says "ready", sends back until killed
 *   load ping ADDRESS PORT COUNT                              one after the other
 *   load teach|probe|broadcast IFNAME COUNT RATE              a frame from, or to, each of COUNT stations; or COUNT
 *                                                             broadcasts
 *   load count IFNAME MILLISECONDS                            as receive, frames of the three above
 *
 * Each datagram begins with its flow and its number there; a datagram with a number below one that came before is
 * counted as reordered. No switch and no policy here. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 32,
    FLOWS = 1024,
    LARGEST = 9000,
    QUEUE = 8 << 20,    /* bytes of a receiver's queue */
    SILENCE = 100,      /* ms without any after which no more come */
    TYPE = 0x88b5,      /* IEEE 802, local experiments */
};

static volatile sig_atomic_t told_to_end;

static void tell_to_end(int signal) { told_to_end = signal; }

struct stamp {
    uint32_t flow, number;
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void ready(void)
{
    puts("ready");
    fflush(stdout);
}

static int udp(const char *address, int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), queue = QUEUE;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (fd < 0)
        die("a socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof queue);
    if (address && inet_pton(AF_INET, address, &name.sin_addr) != 1)
        die(address);
    if (address ? connect(fd, (struct sockaddr *)&name, sizeof name)
                : bind(fd, (struct sockaddr *)&name, sizeof name))
        die("connecting or binding");
    return fd;
}

static int raw(const char *ifname)
{
    int fd = socket(AF_PACKET, SOCK_RAW, htons(TYPE)), queue = QUEUE;
    struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = htons(TYPE),
        .sll_ifindex = (int)if_nametoindex(ifname)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name))
        die(ifname);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue);
    return fd;
}

/* How many may have been sent by now at `rate`; waits until at least one more than `sent`. */
static uint64_t due(uint64_t start, uint64_t rate, uint64_t sent)
{
    if (!rate)
        return sent + BATCH;
    for (;;) {
        uint64_t may = (uint64_t)((double)(now() - start) * (double)rate / 1e9) + 1;
        if (may > sent)
            return may;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, 0);
    }
}

static void datagrams(const char *address, int port, uint64_t ms, uint64_t rate, size_t payload, uint32_t flows)
{
    static int sockets[FLOWS];
    static uint32_t numbers[FLOWS];
    static char bytes[BATCH][LARGEST];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec iovs[BATCH];
    if (payload < sizeof(struct stamp) || payload > LARGEST || flows < 1 || flows > FLOWS)
        die("payload or flows out of range");
    for (uint32_t i = 0; i < flows; i++)
        sockets[i] = udp(address, port);
    for (int i = 0; i < BATCH; i++) {
        iovs[i] = (struct iovec){bytes[i], payload};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1};
    }
    uint64_t start = now(), end = start + ms * 1000000u, sent = 0, refused = 0;
    /* With many flows, short runs of each in turn. */
    uint64_t run = flows == 1 ? BATCH : 8;
    for (uint32_t flow = 0; now() < end; flow = (flow + 1) % flows) {
        uint64_t may = due(start, rate, sent) - sent, count = may < run ? may : run;
        for (uint64_t i = 0; i < count; i++)
            memcpy(bytes[i], &(struct stamp){flow, numbers[flow] + (uint32_t)i}, sizeof(struct stamp));
        int gone = sendmmsg(sockets[flow], messages, (unsigned)count, 0);
        if (gone < 0)
            refused++;
        else
            sent += (uint64_t)gone, numbers[flow] += (uint32_t)gone;
    }
    printf("{\"sent\": %lu, \"refused\": %lu, \"seconds\": %.6f}\n", sent, refused, (double)(now() - start) / 1e9);
}

/* Receives until it is told to end and no more come, for `ms` at most. With `flows`, looks at the stamps. */
static void receive(int fd, uint64_t ms, uint32_t flows)
{
    static char bytes[BATCH][LARGEST];
    static uint32_t highest[FLOWS];
    struct mmsghdr messages[BATCH];
    struct iovec iovs[BATCH];
    uint64_t end = now() + ms * 1000000u, first = 0, last = 0, received = 0, reordered = 0;
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = tell_to_end}, 0);
    ready();
    while (now() < end) {
        for (int i = 0; i < BATCH; i++) {
            iovs[i] = (struct iovec){bytes[i], LARGEST};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1};
        }
        if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, SILENCE) == 0 && told_to_end)
            break;
        int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, 0);
        if (got <= 0)
            continue;
        last = now();
        first = first ? first : last;
        received += (uint64_t)got;
        for (int i = 0; i < got && flows; i++) {
            struct stamp s;
            memcpy(&s, bytes[i], sizeof s);
            if (s.flow >= FLOWS)
                continue;
            reordered += s.number < highest[s.flow];
            highest[s.flow] = s.number > highest[s.flow] ? s.number : highest[s.flow];
        }
    }
    printf("{\"received\": %lu, \"seconds\": %.6f, \"reordered\": %lu}\n", received, (double)(last - first) / 1e9,
           reordered);
}

static void echo(int port)
{
    int fd = udp(0, port);
    char bytes[64];
    struct sockaddr_storage from;
    ready();
    for (;;) {
        socklen_t len = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &len);
        if (got >= 0)
            sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, len);
    }
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void ping(const char *address, int port, size_t count)
{
    int fd = udp(address, port);
    double *times = calloc(count + 1, sizeof *times);
    size_t answered = 0, in_a_row = 0;
    for (size_t i = 0; i < count && in_a_row < 20; i++) {
        struct {
            struct stamp stamp;
            char rest[10];
        } out = {.stamp = {0, (uint32_t)i}}, in = {0};
        uint64_t start = now();
        (void)!send(fd, &out, 18, 0);
        do { /* an answer to an earlier one is not waited for any more */
            in.stamp.number = UINT32_MAX;
            if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 200) == 0)
                break;
            (void)!recv(fd, &in, sizeof in, MSG_DONTWAIT);
        } while (in.stamp.number != out.stamp.number && now() - start < 200000000u);
        in_a_row++;
        if (in.stamp.number == out.stamp.number)
            times[answered++] = (double)(now() - start) / 1e3, in_a_row = 0;
    }
    qsort(times, answered, sizeof *times, rising);
    printf("{\"answered\": %zu, \"p50\": %.2f, \"p99\": %.2f}\n", answered, times[answered / 2],
           times[answered * 99 / 100]);
}

/* Station `i` of the test: locally administered, unicast. */
static void station(uint8_t *mac, uint32_t i)
{
    const uint8_t bytes[6] = {0x02, 0xee, (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
    memcpy(mac, bytes, 6);
}

static void frames(const char *kind, const char *ifname, uint64_t count, uint64_t rate)
{
    int fd = raw(ifname);
    static uint8_t bytes[BATCH][60];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec iovs[BATCH];
    for (int i = 0; i < BATCH; i++) {
        iovs[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &iovs[i], .msg_iovlen = 1};
        /* Whoever teaches speaks to somebody who is nobody; whoever asks is a station of its own. */
        memset(bytes[i], 0xff, 6);
        station(bytes[i] + 6, UINT32_MAX);
        bytes[i][12] = TYPE >> 8, bytes[i][13] = TYPE & 0xff;
    }
    uint64_t start = now(), sent = 0;
    while (sent < count) {
        uint64_t may = due(start, rate, sent) - sent, left = count - sent, part = may < left ? may : left;
        part = part < BATCH ? part : BATCH;
        for (uint64_t i = 0; i < part && *kind != 'b'; i++)
            station(bytes[i] + (*kind == 't' ? 6 : 0), (uint32_t)(sent + i));
        for (uint64_t gone = 0; gone < part;) {
            int took = sendmmsg(fd, messages + gone, (unsigned)(part - gone), 0);
            if (took < 0 && errno != ENOBUFS && errno != EAGAIN)
                die("sending");
            gone += took > 0 ? (uint64_t)took : 0;
        }
        sent += part;
    }
    printf("{\"sent\": %lu, \"seconds\": %.6f}\n", sent, (double)(now() - start) / 1e9);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    prctl(PR_SET_TIMERSLACK, 1);
    if (!strcmp(what, "send") && argc == 8)
        datagrams(argv[2], atoi(argv[3]), strtoul(argv[4], 0, 10), strtoul(argv[5], 0, 10), strtoul(argv[6], 0, 10),
                  (uint32_t)atoi(argv[7]));
    else if (!strcmp(what, "receive") && argc == 5)
        receive(udp(0, atoi(argv[2])), strtoul(argv[3], 0, 10), (uint32_t)atoi(argv[4]));
    else if (!strcmp(what, "echo") && argc == 3)
        echo(atoi(argv[2]));
    else if (!strcmp(what, "ping") && argc == 5)
        ping(argv[2], atoi(argv[3]), strtoul(argv[4], 0, 10));
    else if ((!strcmp(what, "teach") || !strcmp(what, "probe") || !strcmp(what, "broadcast")) && argc == 5)
        frames(what, argv[2], strtoul(argv[3], 0, 10), strtoul(argv[4], 0, 10));
    else if (!strcmp(what, "count") && argc == 4)
        receive(raw(argv[2]), strtoul(argv[3], 0, 10), 0);
    else {
        fputs("load: wrong usage; see the head of load.c\n", stderr);
        return 64;
    }
    return 0;
}
