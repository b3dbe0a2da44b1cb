//! Ethernet addresses of backends and of the routers to them, found with ARP (RFC 826) and neighbor discovery
//! (RFC 4861 §7.2).
//!
//! What is not known is asked for every second; what is known is asked for again every half minute, and is believed
//! until it has not been confirmed for three minutes. Answers, and requests of those who are asked for, are learned
//! from; nobody else is remembered, so that strangers cannot fill the table.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use onvm_lib::wire::arp::{self, Addresses};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{MacAddr, icmpv6, ndp};

const SECOND: u64 = 1_000_000_000;
const ASK_AGAIN: u64 = SECOND;
const CONFIRM: u64 = 30 * SECOND;
const FORGET: u64 = 180 * SECOND;

#[derive(Clone, Copy, Debug, Default)]
struct Neighbour {
    mac: Option<MacAddr>,
    confirmed_ns: u64,
    asked_ns: u64,
}

/// Those whose Ethernet addresses are needed.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(BTreeMap<IpAddr, Neighbour>);

impl Neighbours {
    /// These are needed from now on, and no others.
    pub(crate) fn want(&mut self, all: impl Iterator<Item = IpAddr>) {
        let mut wanted = BTreeMap::new();
        for ip in all {
            wanted.insert(ip, self.0.get(&ip).copied().unwrap_or_default());
        }
        self.0 = wanted;
    }

    pub(crate) fn mac(&self, ip: IpAddr) -> Option<MacAddr> {
        self.0.get(&ip)?.mac
    }

    /// Someone says where he is; whether that is news of one who is needed.
    pub(crate) fn learn(&mut self, ip: IpAddr, mac: MacAddr, now_ns: u64) -> bool {
        let Some(neighbour) =
            self.0.get_mut(&ip).filter(|_| !mac.is_multicast() && mac != MacAddr::default())
        else {
            return false;
        };
        neighbour.confirmed_ns = now_ns;
        neighbour.mac.replace(mac) != Some(mac)
    }

    /// Forgets who has not been heard of for long; whether there was one.
    pub(crate) fn expire(&mut self, now_ns: u64) -> bool {
        let mut any = false;
        for neighbour in self.0.values_mut() {
            if neighbour.mac.is_some() && now_ns.saturating_sub(neighbour.confirmed_ns) >= FORGET {
                neighbour.mac = None;
                any = true;
            }
        }
        any
    }

    /// The next one to ask for, which counts as asked.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<(IpAddr, Option<MacAddr>)> {
        let due = |n: &Neighbour| {
            let since_asked = now_ns.saturating_sub(n.asked_ns);
            let stale = n.mac.is_none() || now_ns.saturating_sub(n.confirmed_ns) >= CONFIRM;
            n.asked_ns == 0 || (stale && since_asked >= ASK_AGAIN)
        };
        let (ip, neighbour) = self.0.iter_mut().find(|(_, neighbour)| due(neighbour))?;
        neighbour.asked_ns = now_ns.max(1);
        Some((*ip, neighbour.mac))
    }
}

/// The question who has `target`, asked by one's own addresses.
pub(crate) fn question(target: IpAddr, own_ip: IpAddr, own_mac: MacAddr) -> Option<Vec<u8>> {
    match (target, own_ip) {
        (IpAddr::V4(target_ip), IpAddr::V4(sender_ip)) => {
            let addresses =
                Addresses { sender_mac: own_mac, sender_ip, target_mac: MacAddr::default(), target_ip };
            Packet::ethernet(own_mac, MacAddr::BROADCAST).arp(arp::REQUEST, addresses).to_vec().ok()
        }
        (IpAddr::V6(target), IpAddr::V6(own)) => {
            let group = solicited_node(target);
            let mut body = [0; 24];
            body[..16].copy_from_slice(&target.octets());
            (body[16], body[17]) = (1, 1);
            body[18..].copy_from_slice(&own_mac.0);
            let packet = Packet::ethernet(own_mac, group_mac(group)).ipv6(own, group).ttl(255);
            packet.icmp(icmpv6::NEIGHBOR_SOLICITATION, 0, 0).payload(&body).to_vec().ok()
        }
        _ => None,
    }
}

/// An advertisement of `target`, which is at `mac`: the IPv6 packet, and the Ethernet address that it goes to. It goes to
/// who asked, or to all if he has no address.
pub(crate) fn advertisement(
    target: Ipv6Addr,
    mac: MacAddr,
    asker: Ipv6Addr,
    asker_mac: MacAddr,
) -> Option<(Vec<u8>, MacAddr)> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = [0; 24];
    body[..16].copy_from_slice(&target.octets());
    (body[16], body[17]) = (2, 1);
    body[18..].copy_from_slice(&mac.0);
    let (to, to_mac, flags) = if asker.is_unspecified() {
        (ALL_NODES, group_mac(ALL_NODES), ndp::OVERRIDE)
    } else {
        (asker, asker_mac, ndp::OVERRIDE | ndp::SOLICITED)
    };
    let packet = Packet::raw().ipv6(target, to).ttl(255).icmp(icmpv6::NEIGHBOR_ADVERTISEMENT, 0, flags);
    Some((packet.payload(&body).to_vec().ok()?, to_mac))
}

/// The group in which questions about an address are asked (RFC 4291 §2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&address.octets()[13..]);
    group.into()
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}
