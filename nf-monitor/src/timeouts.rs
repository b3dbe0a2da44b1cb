//! When a flow is over.
//!
//! An *inactive* flow is over when it has been silent for the time of its kind; an *active* one, for those who want
//! records, when it has lasted for the active timeout: what comes then is another record of the same flow.

use std::time::Duration;

use onvm_lib::wire::{FlowKey, tcp, udp};

use crate::flow::{Flow, State};

/// The names of softflowd's `-t`, so that its command lines can be taken over.
const NAMES: [&str; 7] = ["tcp", "tcp.rst", "tcp.fin", "udp", "icmp", "general", "maxlife"];
/// The longest, in seconds.
const LONGEST: u64 = 1_000_000_000;

/// A timeout by name, as `--timeout` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    kind: usize,
    seconds: u64,
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, seconds) = text.split_once('=').ok_or_else(|| format!("{text} has no =: tcp.fin=300"))?;
        let kind = NAMES.iter().position(|known| *known == name);
        let kind = kind.ok_or_else(|| format!("there is no timeout {name}: {}", NAMES.join(", ")))?;
        let seconds: u64 = seconds.parse().map_err(|_| format!("{seconds} is not a number of seconds"))?;
        if !(1..=LONGEST).contains(&seconds) {
            return Err(format!("{seconds} seconds are not in 1..={LONGEST}"));
        }
        Ok(Self { kind, seconds })
    }
}

/// All timeouts, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// In the order of the names.
    kinds: [u64; NAMES.len()],
    /// The shortest of those of silence.
    pub(crate) shortest: u64,
}

impl Timeouts {
    /// The same for all kinds of flows, and no end to active ones.
    pub(crate) fn new(inactive: Duration) -> Self {
        let inactive = u64::try_from(inactive.as_nanos()).unwrap_or(u64::MAX);
        let mut kinds = [inactive; NAMES.len()];
        kinds[6] = u64::MAX;
        Self { kinds, shortest: inactive }
    }

    /// With the end of active flows after so many seconds.
    pub(crate) fn with_active(mut self, seconds: u64) -> Self {
        self.kinds[6] = seconds.saturating_mul(1_000_000_000);
        self
    }

    /// With these instead.
    pub(crate) fn with(mut self, named: &[Named]) -> Self {
        for Named { kind, seconds } in named {
            self.kinds[*kind] = seconds * 1_000_000_000;
        }
        self.shortest = self.kinds[..6].iter().copied().min().unwrap_or(u64::MAX);
        self
    }

    /// How long a flow may last.
    #[inline]
    pub(crate) fn active(&self) -> u64 {
        self.kinds[6]
    }

    /// How long a flow may be silent.
    pub(crate) fn inactive(&self, key: &FlowKey, flow: &Flow) -> u64 {
        let [all_tcp, reset, closed, all_udp, icmp, general, _] = self.kinds;
        match (key.protocol(), flow.state()) {
            (Some(tcp::PROTOCOL), Some(State::Reset)) => reset,
            (Some(tcp::PROTOCOL), Some(State::Closed)) => closed,
            (Some(tcp::PROTOCOL), _) => all_tcp,
            (Some(udp::PROTOCOL), _) => all_udp,
            (Some(1 | 58), _) => icmp,
            _ => general,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Seen;
    use onvm_lib::wire::tcp::Flags;
    use std::net::Ipv4Addr;

    #[test]
    fn names_are_softflowd_s() {
        let wrong = |text: &str| text.parse::<Named>().unwrap_err();
        assert_eq!("tcp.fin=300".parse::<Named>(), Ok(Named { kind: 2, seconds: 300 }));
        assert_eq!(wrong("tcp"), "tcp has no =: tcp.fin=300");
        assert_eq!(
            wrong("tpc=1"),
            "there is no timeout tpc: tcp, tcp.rst, tcp.fin, udp, icmp, general, maxlife"
        );
        assert_eq!(wrong("udp=soon"), "soon is not a number of seconds");
        assert_eq!(wrong("udp=0"), "0 seconds are not in 1..=1000000000");
    }

    #[test]
    fn each_kind_has_its_own() {
        let named = ["tcp=100", "tcp.rst=2", "tcp.fin=3", "udp=4", "icmp=5", "maxlife=1000"];
        let named: Vec<Named> = named.iter().map(|text| text.parse().unwrap()).collect();
        let timeouts = Timeouts::new(Duration::from_secs(60)).with(&named);
        let seconds = |protocol, flags: [u16; 2]| {
            let key = FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 1, 2, protocol);
            let seen = |flags| Seen { bytes: 60, octets: 46, now_ns: 1, flags: Flags(flags) };
            let mut flow = Flow::new(false, seen(flags[0]));
            flow.add::<true>(true, seen(flags[1]));
            timeouts.inactive(&key, &flow) / 1_000_000_000
        };
        assert_eq!(seconds(6, [0x10, 0x10]), 100);
        assert_eq!(seconds(6, [0x11, 0x10]), 100);
        assert_eq!(seconds(6, [0x11, 0x11]), 3);
        assert_eq!(seconds(6, [0x11, 0x14]), 2);
        assert_eq!([seconds(17, [0; 2]), seconds(1, [0; 2]), seconds(58, [0; 2])], [4, 5, 5]);
        assert_eq!(seconds(50, [0; 2]), 60);
        assert_eq!((timeouts.shortest, timeouts.active()), (2_000_000_000, 1_000_000_000_000));
    }
}
