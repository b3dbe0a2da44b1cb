/* What of DPDK cannot be called from Rust: functions that its headers define inline, and structures too large or too
 * full of bit fields to be declared by hand. The assertions keep the declarations of src/lib.rs true: a DPDK that lays
 * its structures out otherwise does not compile.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* struct Mbuf */
#define MBUF(field, at) _Static_assert(offsetof(struct rte_mbuf, field) == (at), "rte_mbuf." #field)
MBUF(buf_addr, 0);
MBUF(buf_iova, 8);
MBUF(data_off, 16);
MBUF(refcnt, 18);
MBUF(nb_segs, 20);
MBUF(port, 22);
MBUF(ol_flags, 24);
MBUF(packet_type, 32);
MBUF(pkt_len, 36);
MBUF(data_len, 40);
MBUF(vlan_tci, 42);
MBUF(hash, 44);
MBUF(vlan_tci_outer, 52);
MBUF(buf_len, 54);
MBUF(pool, 56);
MBUF(next, 64);
MBUF(tx_offload, 72);
MBUF(shinfo, 80);
MBUF(priv_size, 88);
MBUF(timesync, 90);
MBUF(dynfield1, 92);
_Static_assert(sizeof(struct rte_mbuf) == 128 && _Alignof(struct rte_mbuf) == 64, "rte_mbuf");

/* struct MbufShared */
_Static_assert(offsetof(struct rte_mbuf_ext_shared_info, free_cb) == 0, "rte_mbuf_ext_shared_info.free_cb");
_Static_assert(offsetof(struct rte_mbuf_ext_shared_info, fcb_opaque) == 8, "rte_mbuf_ext_shared_info.fcb_opaque");
_Static_assert(offsetof(struct rte_mbuf_ext_shared_info, refcnt) == 16, "rte_mbuf_ext_shared_info.refcnt");
_Static_assert(sizeof(struct rte_mbuf_ext_shared_info) == 24, "rte_mbuf_ext_shared_info");

/* struct Mempool, its front */
#define POOL(field, at) _Static_assert(offsetof(struct rte_mempool, field) == (at), "rte_mempool." #field)
POOL(name, 0);
POOL(pool_data, 32);
POOL(pool_config, 40);
POOL(size, 64);
POOL(elt_size, 72);
POOL(header_size, 76);
POOL(trailer_size, 80);

/* struct MempoolOps */
#define OPS(field, at) _Static_assert(offsetof(struct rte_mempool_ops, field) == (at), "rte_mempool_ops." #field)
OPS(name, 0);
OPS(alloc, 32);
OPS(free, 40);
OPS(enqueue, 48);
OPS(dequeue, 56);
OPS(get_count, 64);
OPS(calc_mem_size, 72);
OPS(populate, 80);
OPS(get_info, 88);
OPS(dequeue_contig_blocks, 96);
_Static_assert(sizeof(struct rte_mempool_ops) == 128, "rte_mempool_ops");

/* struct PoolPrivate */
_Static_assert(offsetof(struct rte_pktmbuf_pool_private, mbuf_data_room_size) == 0, "pool private, room");
_Static_assert(offsetof(struct rte_pktmbuf_pool_private, mbuf_priv_size) == 2, "pool private, private");
_Static_assert(offsetof(struct rte_pktmbuf_pool_private, flags) == 4, "pool private, flags");
_Static_assert(sizeof(struct rte_pktmbuf_pool_private) == 8, "pool private");

/* Constants of src/lib.rs. */
_Static_assert(RTE_PKTMBUF_HEADROOM == 128, "RTE_PKTMBUF_HEADROOM");
_Static_assert(RTE_MBUF_F_RX_VLAN == 1, "RX_VLAN");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_BAD == 1 << 3, "RX_L4_CKSUM_BAD");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_BAD == 1 << 4, "RX_IP_CKSUM_BAD");
_Static_assert(RTE_MBUF_F_RX_VLAN_STRIPPED == 1 << 6, "RX_VLAN_STRIPPED");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_GOOD == 1 << 7, "RX_IP_CKSUM_GOOD");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_GOOD == 1 << 8, "RX_L4_CKSUM_GOOD");
_Static_assert(RTE_MBUF_F_RX_QINQ_STRIPPED == 1 << 15, "RX_QINQ_STRIPPED");
_Static_assert(RTE_MBUF_F_EXTERNAL == 1ULL << 61, "EXTERNAL");
_Static_assert(RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF == 1, "PINNED_EXT_BUF");
_Static_assert(RTE_MEMPOOL_F_NO_SPREAD == 1 && RTE_MEMPOOL_F_NO_IOVA_CONTIG == 0x20, "mempool flags");
_Static_assert(SOCKET_ID_ANY == -1, "SOCKET_ID_ANY");

/* What a device can do: struct Facts. */
struct onvm_facts {
    struct rte_device *device;
    const char *driver;
    uint64_t rss_offloads;
    uint32_t max_rx_length;
    uint32_t interface;
    uint16_t min_mtu, max_mtu;
    uint16_t max_rx_queues, max_tx_queues;
    uint16_t rx_ring, tx_ring; /* what the driver asks for, 0: nothing */
    uint8_t rss_key_bytes;
    uint8_t rx_checksum, tx_fast_free, vlan_strip, rx_scatter;
    uint8_t padding[3];
};
_Static_assert(sizeof(struct onvm_facts) == 56, "struct Facts of src/lib.rs");

/* What is wanted of it: struct Wish. */
struct onvm_wish {
    const uint8_t *rss_key;
    uint16_t rx_queues, tx_queues;
    uint16_t mtu; /* 0: the driver's own */
    uint8_t rx_checksum, tx_fast_free;
    uint8_t rss_key_bytes, rx_interrupts;
    uint8_t padding[6];
};
_Static_assert(sizeof(struct onvm_wish) == 24, "struct Wish of src/lib.rs");

/* What it counts: struct Counters. */
struct onvm_counters {
    uint64_t rx_packets, tx_packets, rx_missed, rx_errors, tx_errors, rx_no_mbuf;
};

#define RX_CHECKSUM (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
#define RSS_TYPES (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP)

const char *onvm_dpdk_version(void) { return rte_version(); }

int onvm_dpdk_errno(void) { return rte_errno; }

/* EAL's words go to standard error, and not to syslog as well. */
int onvm_dpdk_log_to_stderr(void) { return rte_openlog_stream(stderr); }

uint16_t onvm_dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t most) {
    return rte_eth_rx_burst(port, queue, packets, most);
}

uint16_t onvm_dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n) {
    return rte_eth_tx_burst(port, queue, packets, n);
}

int onvm_dpdk_tx_descriptor_status(uint16_t port, uint16_t queue, uint16_t offset) {
    return rte_eth_tx_descriptor_status(port, queue, offset);
}

void onvm_dpdk_free(struct rte_mbuf *packet) { rte_pktmbuf_free(packet); }

int onvm_dpdk_facts(uint16_t port, struct onvm_facts *facts) {
    struct rte_eth_dev_info info;
    int failed = rte_eth_dev_info_get(port, &info);
    if (failed)
        return failed;
    memset(facts, 0, sizeof *facts);
    facts->device = info.device;
    facts->driver = info.driver_name;
    facts->rss_offloads = info.flow_type_rss_offloads & RSS_TYPES;
    facts->max_rx_length = info.max_rx_pktlen;
    facts->interface = info.if_index;
    facts->min_mtu = info.min_mtu;
    facts->max_mtu = info.max_mtu;
    facts->max_rx_queues = info.max_rx_queues;
    facts->max_tx_queues = info.max_tx_queues;
    facts->rx_ring = info.default_rxportconf.ring_size;
    facts->tx_ring = info.default_txportconf.ring_size;
    facts->rss_key_bytes = info.hash_key_size;
    facts->rx_checksum = (info.rx_offload_capa & RX_CHECKSUM) != 0;
    facts->tx_fast_free = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE) != 0;
    facts->vlan_strip = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) != 0;
    facts->rx_scatter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
    return 0;
}

int onvm_dpdk_configure(uint16_t port, const struct onvm_wish *wish) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    int failed = rte_eth_dev_info_get(port, &info);
    if (failed)
        return failed;
    memset(&conf, 0, sizeof conf);
    conf.rxmode.mtu = wish->mtu;
    if (wish->rx_checksum)
        conf.rxmode.offloads |= info.rx_offload_capa & RX_CHECKSUM;
    if (wish->tx_fast_free)
        conf.txmode.offloads |= info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    if (wish->rss_key_bytes > 0) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_key = (uint8_t *)(uintptr_t)wish->rss_key;
        conf.rx_adv_conf.rss_conf.rss_key_len = wish->rss_key_bytes;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & RSS_TYPES;
    }
    conf.intr_conf.rxq = wish->rx_interrupts;
    return rte_eth_dev_configure(port, wish->rx_queues, wish->tx_queues, &conf);
}

int onvm_dpdk_counters(uint16_t port, struct onvm_counters *counters) {
    struct rte_eth_stats stats;
    int failed = rte_eth_stats_get(port, &stats);
    if (failed)
        return failed;
    *counters = (struct onvm_counters){stats.ipackets, stats.opackets, stats.imissed,
                                       stats.ierrors,  stats.oerrors,  stats.rx_nombuf};
    return 0;
}

/* 1 up, 0 down, less: not known. */
int onvm_dpdk_link(uint16_t port, uint32_t *speed) {
    struct rte_eth_link link;
    int failed = rte_eth_link_get_nowait(port, &link);
    if (failed)
        return failed;
    *speed = link.link_speed;
    return link.link_status;
}
