//! Connections that other flows have announced, until their first data come.

use std::net::IpAddr;

use crate::app::Transfer;

/// Announced connections that wait; with one more, the oldest is forgotten.
const MOST: usize = 4096;
/// How long one is waited for; Suricata's.
const PATIENCE_NS: u64 = 30_000_000_000;

#[derive(Debug)]
struct Awaited {
    ends: [IpAddr; 2],
    transfer: Transfer,
    until_ns: u64,
}

/// What is announced. It is nearly always empty, and then costs a flow nothing.
#[derive(Debug, Default)]
pub(super) struct Transfers(std::collections::VecDeque<Awaited>);

fn ordered(a: IpAddr, b: IpAddr) -> [IpAddr; 2] {
    [a.min(b), a.max(b)]
}

impl Transfers {
    /// Notes what a flow between these hosts announces.
    pub(super) fn announce(&mut self, a: IpAddr, b: IpAddr, transfer: Transfer, now_ns: u64) {
        self.0.retain(|one| one.until_ns > now_ns);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        let until_ns = now_ns.saturating_add(PATIENCE_NS);
        self.0.push_back(Awaited { ends: ordered(a, b), transfer, until_ns });
    }

    /// Takes what was announced for a flow between these hosts to this port.
    pub(super) fn take(&mut self, a: IpAddr, b: IpAddr, port: u16, now_ns: u64) -> Option<Transfer> {
        if self.0.is_empty() {
            return None;
        }
        let ends = ordered(a, b);
        let wanted = |one: &Awaited| one.ends == ends && one.transfer.port == port && one.until_ns > now_ns;
        let at = self.0.iter().position(wanted)?;
        self.0.remove(at).map(|one| one.transfer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_taken_once_by_its_hosts_and_in_time() {
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
        let transfer = Transfer { port: 2000, stores: false, name: b"x".to_vec() };
        let mut all = Transfers::default();
        all.announce(a, b, transfer.clone(), 0);
        assert_eq!(all.take(a, c, 2000, 1), None);
        assert_eq!(all.take(a, b, 2001, 1), None);
        assert_eq!(all.take(a, b, 2000, PATIENCE_NS), None);
        assert_eq!(all.take(b, a, 2000, 1), Some(transfer.clone()));
        assert_eq!(all.take(b, a, 2000, 1), None);
        for _ in 0..2 * MOST {
            all.announce(a, b, transfer.clone(), 1);
        }
        assert_eq!(all.0.len(), MOST);
    }
}
