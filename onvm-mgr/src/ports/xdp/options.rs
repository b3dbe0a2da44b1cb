//! What stands behind `xdp:`.

use std::ops::RangeInclusive;

use super::super::Spec;
use super::super::spec::SpecError;
use super::bpf::Mode;

/// Most queues that one port has.
const MOST_QUEUES: u64 = 64;

/// How frames come from the driver into buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// As the driver can.
    Auto,
    /// The device writes into the buffers itself, or the port is not opened.
    Zero,
    /// The kernel copies.
    Copied,
}

/// A port as the user wants it.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) interface: String,
    /// None: native where it can be had.
    pub(super) mode: Option<Mode>,
    pub(super) copy: Transfer,
    /// None: all.
    pub(super) queues: Option<RangeInclusive<u32>>,
    pub(super) promiscuous: bool,
    /// Another program on the interface is replaced.
    pub(super) force: bool,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(spec: &Spec) -> Result<Self, SpecError> {
        let Some(interface) = spec.get("interface") else {
            return Err(spec.missing("the name of an interface is needed, as in xdp:eth0"));
        };
        let mode = match spec.get("mode") {
            None | Some("auto") => None,
            Some("native") => Some(Mode::Native),
            Some("generic") => Some(Mode::Generic),
            Some(_) => return Err(spec.bad("mode", "auto, native or generic is needed")),
        };
        let copy = match spec.get("copy") {
            None | Some("auto") => Transfer::Auto,
            Some("zero") => Transfer::Zero,
            Some("copy") => Transfer::Copied,
            Some(_) => return Err(spec.bad("copy", "auto, zero or copy is needed")),
        };
        if (mode, copy) == (Some(Mode::Generic), Transfer::Zero) {
            return Err(spec.bad("copy", "a driver hands over without a copy in native mode only"));
        }
        let yes = |option, otherwise| match spec.get(option) {
            None => Ok(otherwise),
            Some("yes" | "on" | "true" | "1") => Ok(true),
            Some("no" | "off" | "false" | "0") => Ok(false),
            Some(_) => Err(spec.bad(option, "yes or no is needed")),
        };
        let (promiscuous, force) = (yes("promiscuous", true)?, yes("force", false)?);
        let queues = Self::queues(spec)?;
        Ok(Self { interface: interface.to_string(), mode, copy, queues, promiscuous, force })
    }

    fn queues(spec: &Spec) -> Result<Option<RangeInclusive<u32>>, SpecError> {
        if let Some(one) = spec.get("queue") {
            if spec.get("queues").is_some() {
                return Err(spec.bad("queue", "either queue or queues can be given"));
            }
            let one = one.parse::<u32>().map_err(|_| spec.bad("queue", "a number like 0 is needed"))?;
            return Ok(Some(one..=one));
        }
        let Some(range) = spec.get("queues") else { return Ok(None) };
        let bad = || spec.bad("queues", format!("a range like 0-3 is needed, of at most {MOST_QUEUES}"));
        let (first, last) = range.split_once('-').ok_or_else(bad)?;
        let (first, last) = (first.parse::<u32>(), last.parse::<u32>());
        let (first, last) = (first.map_err(|_| bad())?, last.map_err(|_| bad())?);
        if first > last || u64::from(last - first) >= MOST_QUEUES {
            return Err(bad());
        }
        Ok(Some(first..=last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        Options::read(&text.parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_read() {
        let plain = read("xdp:eth0").unwrap();
        assert_eq!((plain.mode, plain.copy, plain.queues), (None, Transfer::Auto, None));
        assert!(plain.promiscuous && !plain.force);
        let all = read("xdp:eth0,mode=generic,copy=copy,queues=1-3,force,promiscuous=no").unwrap();
        assert_eq!((all.mode, all.queues), (Some(Mode::Generic), Some(1..=3)));
        assert!(all.force && !all.promiscuous);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            ("xdp:", "the name of an interface is needed"),
            ("xdp:a,mode=fast", "mode=fast: auto, native or generic"),
            ("xdp:a,copy=no", "copy=no: auto, zero or copy"),
            ("xdp:a,mode=generic,copy=zero", "in native mode only"),
            ("xdp:a,queue=x", "queue=x: a number"),
            ("xdp:a,queues=3", "queues=3: a range like 0-3"),
            ("xdp:a,queues=3-1", "a range like 0-3"),
            ("xdp:a,queues=0-64", "of at most 64"),
            ("xdp:a,queue=1,queues=0-2", "either queue or queues"),
            ("xdp:a,force=maybe", "yes or no"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(want), "{told}");
        }
    }
}
