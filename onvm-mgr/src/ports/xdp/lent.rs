//! Which buffers the kernel has, and what for.
//!
//! A buffer that stands in one of the rings, or that the kernel has taken from one, is in no [`Packet`] that anybody
//! could use: the token stays here until the kernel says that it is done, or its sockets are gone.

use onvm_lib::pool::Packet;

/// A buffer that the kernel has.
#[derive(Debug)]
struct Loan {
    packet: Packet,
    /// Parts of the packet that are still to be sent; 0 for a buffer to receive into.
    parts: u8,
    /// The kernel has dropped a part of it.
    failed: bool,
}

/// All buffers that the kernel has, by their numbers.
#[derive(Debug)]
pub(super) struct Lent {
    loans: Box<[Option<Loan>]>,
    count: usize,
    sending: usize,
}

/// What a completion told of.
#[derive(Debug)]
pub(super) enum Done {
    /// A packet was sent, all of it.
    Sent(Packet),
    /// A packet that was dropped on its way.
    Failed(Packet),
    /// One part of several.
    Part,
    /// A buffer that was not being sent.
    Stray,
}

impl Lent {
    /// For a pool of so many buffers.
    pub(super) fn new(buffers: u32) -> Self {
        Self { loans: (0..buffers).map(|_| None).collect(), count: 0, sending: 0 }
    }

    /// Buffers that the kernel has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Packets that are being sent.
    pub(super) fn sending(&self) -> usize {
        self.sending
    }

    fn lend(&mut self, packet: Packet, parts: u8) {
        let place = packet.descriptor().buffer() as usize;
        debug_assert!(self.loans[place].is_none(), "a buffer is lent once");
        self.loans[place] = Some(Loan { packet, parts, failed: false });
        self.count += 1;
    }

    /// The kernel gets an empty buffer to receive into.
    pub(super) fn lend_empty(&mut self, packet: Packet) {
        self.lend(packet, 0);
    }

    /// The kernel gets a packet to send, in so many parts, 1 or more.
    pub(super) fn lend_packet(&mut self, packet: Packet, parts: u8) {
        debug_assert!(parts > 0);
        self.lend(packet, parts);
        self.sending += 1;
    }

    fn end(&mut self, buffer: u32) -> Option<Loan> {
        let loan = self.loans.get_mut(buffer as usize)?.take()?;
        self.count -= 1;
        Some(loan)
    }

    /// The kernel has received into a buffer.
    pub(super) fn filled(&mut self, buffer: u32) -> Option<Packet> {
        let loan = self.loans.get(buffer as usize)?.as_ref()?;
        if loan.parts > 0 {
            return None;
        }
        self.end(buffer).map(|loan| loan.packet)
    }

    /// The kernel has dropped what was to be sent, and will say that it is done.
    pub(super) fn fail(&mut self, buffer: u32) {
        if let Some(Some(loan)) = self.loans.get_mut(buffer as usize) {
            loan.failed = loan.parts > 0;
        }
    }

    /// The kernel is done with a part of what was to be sent.
    pub(super) fn sent(&mut self, buffer: u32) -> Done {
        let Some(Some(loan)) = self.loans.get_mut(buffer as usize) else { return Done::Stray };
        match loan.parts {
            0 => Done::Stray,
            1 => {
                self.sending -= 1;
                match self.end(buffer) {
                    Some(Loan { packet, failed: true, .. }) => Done::Failed(packet),
                    Some(Loan { packet, .. }) => Done::Sent(packet),
                    None => Done::Stray,
                }
            }
            _ => {
                loan.parts -= 1;
                Done::Part
            }
        }
    }

    /// The sockets are gone, and the kernel has nothing any more.
    pub(super) fn take_all(&mut self) -> Vec<Packet> {
        (self.count, self.sending) = (0, 0);
        self.loans.iter_mut().filter_map(|loan| loan.take().map(|loan| loan.packet)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::pool::{Books, Geometry, Pool};
    use onvm_lib::shm::Pages;

    #[test]
    fn a_loan_ends_once_and_for_what_it_was_made() {
        let mut books = Books::new(Pool::create(Geometry::new(8, 2048).unwrap(), Pages::Plain).unwrap(), 1);
        let mut lent = Lent::new(8);
        let (fill, send) = (books.allocate(0).unwrap(), books.allocate(60).unwrap());
        let (f, s) = (fill.descriptor().buffer(), send.descriptor().buffer());
        lent.lend_empty(fill);
        lent.lend_packet(send, 2);
        assert_eq!((lent.count(), lent.sending()), (2, 1));
        assert!(lent.filled(s).is_none() && matches!(lent.sent(f), Done::Stray), "each in its own way");
        assert!(matches!(lent.sent(s), Done::Part));
        lent.fail(s);
        let Done::Failed(packet) = lent.sent(s) else { panic!("the last part") };
        books.free(packet);
        assert!(matches!(lent.sent(s), Done::Stray) && matches!(lent.sent(99), Done::Stray));
        books.free(lent.filled(f).unwrap());
        assert!(lent.filled(f).is_none());
        let again = books.allocate(0).unwrap();
        lent.lend_empty(again);
        lent.take_all().into_iter().for_each(|packet| books.free(packet));
        assert_eq!((lent.count(), books.free_count()), (0, 8));
    }
}
