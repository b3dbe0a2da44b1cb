//! The rows of the table, each runnable by its name.

mod chain;
mod classifier;
mod cost;
mod dpdk;
mod failover;
mod fair;
mod forwarding;
mod hop;
mod ids;
mod life;
mod ports;
mod round_trip;
mod speed;
mod wires;

use crate::measure::{Effort, Line};

/// A group of lines that is measured together.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(Effort) -> Vec<Line>,
}

pub(crate) const ROWS: &[Row] = &[
    Row { name: "one-hop", about: "gen: → one NF → null:, against bare rings and DPDK", run: hop::run },
    Row { name: "self-loop", about: "nf-speedtest to itself, against a bare ring", run: speed::to_itself },
    Row {
        name: "ping-pong",
        about: "nf-speedtest → nf-forward → back, a core each",
        run: speed::there_and_back,
    },
    Row { name: "latency", about: "one packet alone, to itself and over two cores", run: speed::alone },
    Row {
        name: "chain",
        about: "3 and 5 NFs on one core, against bare rings with the same waiting",
        run: chain::run,
    },
    Row { name: "fair", about: "NFs of 50 to 10,000 cycles on one core, overloaded", run: fair::run },
    Row { name: "start", about: "from exec of an NF to its first packet", run: life::start },
    Row { name: "idle", about: "processor use of a manager with 10 and 100 idle NFs", run: life::idle },
    Row {
        name: "failover",
        about: "from SIGKILL of an NF to the next packet of its flows",
        run: failover::run,
    },
    Row {
        name: "asleep",
        about: "one packet through a chain of 5 that sleeps on one core",
        run: speed::asleep,
    },
    Row {
        name: "classifier",
        about: "first matching rules of ClassBench's sets, against DPDK's librte_acl",
        run: classifier::classbench,
    },
    Row {
        name: "made-rules",
        about: "the same over rules made here, without any files",
        run: classifier::made,
    },
    Row {
        name: "ids",
        about: "nf-ids over captures in memory, without and with rules, against Suricata's figures",
        run: ids::run,
    },
    Row {
        name: "dpdk",
        about: "ports on DPDK's devices, against dpdk-testpmd between the same devices",
        run: dpdk::run,
    },
    Row {
        name: "ports",
        about: "forwarding over veths by afpacket and xdp, against the Linux bridge and nftables",
        run: ports::run,
    },
    Row {
        name: "xdp",
        about: "native xdp over veths, against the best of dpdk-testpmd",
        run: dpdk::run_native,
    },
    Row {
        name: "round-trip",
        about: "ping through one NF over veths, awake and asleep, against the Linux bridge",
        run: round_trip::run,
    },
    Row { name: "cost", about: "cycles and instructions for a packet and hop", run: cost::run },
];
