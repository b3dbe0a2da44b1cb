/* DPDK's rte_ring between two processes, as a peer of one hop: mbuf pointers, the same touches of packets.
 *
 *   feeder (core 0): get mbufs, write 64-byte packets ──ring──▶ node (core 1): read headers, TTL - 1
 *        ▲ put mbufs back ◀───────────────────────────ring─────────┘
 *
 * usage: ring-pair WARM_MS RUN_MS huge|plain     prints packets a second
 * The second process is a fork: EAL's memory is shared and lies at the same address, as with a secondary.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#define BURST 64
#define WATERMARK 1024
#define RING_SIZE 16384
#define BUFFERS 32767

static void die(const char *what) {
    fprintf(stderr, "ring-pair: %s\n", what);
    exit(1);
}

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("cannot pin to a core");
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* The same packet as the bare ring's feeder writes. */
static void fill_template(uint8_t packet[64]) {
    static const uint8_t head[34] = {2, 0, 0, 0, 0, 2, 2,    0, 0,  0,  0, 1, 8,  0, 0x45, 0,   0,
                                     50, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 0, 172, 16, 0, 1};
    memset(packet, 0, 64);
    memcpy(packet, head, sizeof head);
}

static inline void hop(struct rte_mbuf *m) {
    uint8_t *p = rte_pktmbuf_mtod(m, uint8_t *);
    if (p[12] == 8 && p[13] == 0 && p[14] == 0x45 && p[22] > 1) {
        uint32_t old = (uint32_t)p[22] << 8 | p[23];
        p[22]--;
        uint32_t new = (uint32_t)p[22] << 8 | p[23];
        uint32_t sum = (uint16_t) ~((uint32_t)p[24] << 8 | p[25]);
        sum += (uint16_t)~old + new;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = ~((sum & 0xffff) + (sum >> 16));
        p[24] = (uint8_t)(sum >> 8);
        p[25] = (uint8_t)sum;
    }
}

static void node(struct rte_ring *in, struct rte_ring *out, volatile int *stop) {
    struct rte_mbuf *burst[BURST];
    while (!*stop) {
        unsigned n = rte_ring_sc_dequeue_burst(in, (void **)burst, BURST, NULL);
        if (n == 0) {
            rte_pause();
            continue;
        }
        for (unsigned i = 0; i < n; i++)
            rte_prefetch0(burst[i]);
        for (unsigned i = 0; i < n; i++)
            hop(burst[i]);
        /* What is under way is less than the ring's size: there is always room. */
        rte_ring_sp_enqueue_burst(out, (void **)burst, n, NULL);
    }
}

static double feeder(struct rte_mempool *pool, struct rte_ring *out, struct rte_ring *in, double warm, double run) {
    struct rte_mbuf *burst[BURST];
    uint8_t template[64];
    uint64_t packets = 0, before = 0;
    double started = now(), begun = 0;
    fill_template(template);
    for (unsigned round = 1;; round++) {
        unsigned n = rte_ring_sc_dequeue_burst(in, (void **)burst, BURST, NULL);
        if (n > 0)
            rte_mempool_put_bulk(pool, (void **)burst, n);
        packets += n;
        if (rte_ring_count(out) + BURST <= WATERMARK && rte_mempool_get_bulk(pool, (void **)burst, BURST) == 0) {
            for (unsigned i = 0; i < BURST; i++) {
                memcpy(rte_pktmbuf_mtod(burst[i], void *), template, 64);
                burst[i]->data_len = 64;
                burst[i]->pkt_len = 64;
            }
            rte_ring_sp_enqueue_burst(out, (void **)burst, BURST, NULL);
        } else if (n == 0) {
            rte_pause();
        }
        if (round % 256 == 0) {
            double t = now();
            if (begun == 0 && t - started >= warm) {
                begun = t;
                before = packets;
            } else if (begun != 0 && t - begun >= run) {
                return (double)(packets - before) / (t - begun);
            }
        }
    }
}

int main(int argc, char **argv) {
    char *huge[] = {argv[0], "-l", "0", "--in-memory", "--iova-mode=va", "-m", "128", "--no-telemetry", "--no-pci",
                    "--log-level=*:error"};
    char *plain[] = {argv[0], "-l", "0", "--no-huge", "-m", "512", "--no-shconf", "--no-telemetry", "--no-pci",
                     "--log-level=*:error"};
    if (argc != 4)
        die("usage: ring-pair WARM_MS RUN_MS huge|plain");
    if (rte_eal_init(10, strcmp(argv[3], "huge") == 0 ? huge : plain) < 0)
        die("EAL does not start");
    struct rte_mempool *pool = rte_pktmbuf_pool_create("pool", BUFFERS, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
    unsigned flags = RING_F_SP_ENQ | RING_F_SC_DEQ;
    struct rte_ring *there = rte_ring_create("there", RING_SIZE, 0, flags);
    struct rte_ring *back = rte_ring_create("back", RING_SIZE, 0, flags);
    volatile int *stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pool == NULL || there == NULL || back == NULL || stop == MAP_FAILED)
        die("no memory");
    pid_t child = fork();
    if (child < 0)
        die("cannot fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(1);
        node(there, back, stop);
        _exit(0);
    }
    pin(0);
    double rate = feeder(pool, there, back, atof(argv[1]) / 1000, atof(argv[2]) / 1000);
    *stop = 1;
    waitpid(child, NULL, 0);
    printf("%.0f\n", rate);
    return 0;
}
