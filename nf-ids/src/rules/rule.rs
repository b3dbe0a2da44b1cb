//! A rule as it was understood: what the parser makes and the detector compiles.

use std::path::PathBuf;
use std::sync::Arc;

use super::compare::Compare;
use super::list::{Addresses, Ports};
use super::state::{Filter, StateTest, Threshold};
use super::test::{Section, Test};

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Says so, and nothing else.
    Alert,
    /// Lets the packet go and asks no further rule.
    Pass,
    /// Inline: the packet does not go on. Says so.
    Drop,
    /// As `Drop`, and the sender (or both, or the receiver) is told by a reset or an ICMP error.
    Reject(RejectTo),
}

/// Whom a rejection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectTo {
    /// The packet's sender.
    Source,
    /// Its receiver.
    Destination,
    /// Both.
    Both,
}

/// What packets a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Every packet of IPv4 or IPv6.
    Ip,
    /// Every packet of IPv4.
    Ipv4,
    /// Every packet of IPv6.
    Ipv6,
    /// TCP: its stream, and its packets where the rule needs them.
    Tcp,
    /// TCP, packets only.
    TcpPacket,
    /// TCP, the reassembled stream only.
    TcpStream,
    /// UDP.
    Udp,
    /// ICMP for IPv4 and for IPv6.
    Icmp,
    /// ICMP for IPv4.
    Icmpv4,
    /// ICMP for IPv6.
    Icmpv6,
    /// SCTP.
    Sctp,
    /// Any IP protocol by its number.
    Number(u8),
    /// ARP.
    Arp,
    /// Any packet, also one that could not be decoded.
    PacketHeader,
    /// What is recognised as this application protocol, by the name that rules use.
    App(&'static str),
}

/// How the two ends of a rule's header relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrow {
    /// `->`: from the left to the right.
    Right,
    /// `<>`: either way.
    Either,
    /// `=>`: the request from left to right, and its response from right to left.
    Transaction,
}

/// The two ways of a flow that a rule may be about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Client to server.
    pub to_server: bool,
    /// Server to client.
    pub to_client: bool,
}

/// `flow:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTest {
    /// `to_server` or `to_client`.
    pub way: Option<Way>,
    /// `established` (`Some(true)`), `not_established` (`Some(false)`).
    pub established: Option<bool>,
    /// `stateless`.
    pub stateless: bool,
    /// `only_stream`.
    pub only_stream: bool,
    /// `no_stream`.
    pub no_stream: bool,
    /// `only_frag` (`Some(true)`), `no_frag` (`Some(false)`).
    pub fragment: Option<bool>,
}

/// One way of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Client to server.
    ToServer,
    /// Server to client.
    ToClient,
}

/// What class of engine evaluates a rule, by what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Addresses only: once for each direction of a flow, on its first packet.
    IpOnly,
    /// As `IpOnly`, but with a negation among the addresses: each packet, and its action is for the flow.
    LikeIpOnly,
    /// `app-layer-protocol` only: once for each direction, when the protocol is known.
    ProtocolOnly,
    /// Events of the decoder.
    Decoder,
    /// Single packets.
    Packet,
    /// Packets, and the stream.
    PacketAndStream,
    /// The stream.
    Stream,
    /// The application protocol, without any buffer of it: each packet of it.
    App,
    /// Buffers of a transaction.
    Transaction,
}

/// A test of a packet's headers.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderTest {
    /// A number that the packet has.
    Number(Field, Compare),
    /// An option of the IPv4 header; `None` is any option.
    IpOption(Option<crate::decode::OptionKind>),
    /// More-fragments, don't-fragment and reserved (4, 2, 1 as in `MDR`).
    FragmentBits(Bits),
    /// TCP flags.
    TcpFlags(Bits),
    /// Source and destination are the same.
    SameIp,
    /// Bytes that were reassembled: of the client, of the server, both, or either.
    StreamSize(StreamSide, Compare),
    /// An event of the decoder.
    DecodeEvent(crate::decode::Event),
    /// An event of the reassembly.
    StreamEvent(crate::stream::Event),
    /// A checksum that is right (`true`) or wrong.
    Checksum(Checksummed, bool),
    /// A call of ONC RPC; what is `None` may be any.
    Rpc {
        /// The program's number.
        program: u32,
        /// Its version.
        version: Option<u32>,
        /// What is called.
        procedure: Option<u32>,
    },
    /// What the flow is recognised as: one of these; negated; which way.
    AppProtocol(Vec<crate::app::Protocol>, bool, ProtocolSide),
}

/// Which direction's protocol `app-layer-protocol` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolSide {
    /// Of the packet's direction.
    Packet,
    /// What was decided for the whole flow.
    Final,
    /// Either direction.
    Either,
    /// To the server.
    ToServer,
    /// To the client.
    ToClient,
    /// What the client spoke before the flow changed its protocol.
    Original,
}

/// A number of a packet or of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Time to live or hop limit.
    Ttl,
    /// IPv4 type of service.
    Tos,
    /// IPv4 identification.
    Id,
    /// The number of the protocol above IP.
    IpProtocol,
    /// Fragment offset, in units of 8 bytes.
    FragmentOffset,
    /// TCP sequence number.
    Sequence,
    /// TCP acknowledgement number.
    Acknowledgement,
    /// TCP window, as it stands in the header.
    Window,
    /// TCP's maximum segment size option.
    Mss,
    /// TCP's window scale option.
    WindowScale,
    /// ICMP type.
    IcmpType,
    /// ICMP code.
    IcmpCode,
    /// ICMP identifier of echo messages.
    IcmpId,
    /// ICMP sequence number of echo messages.
    IcmpSequence,
    /// MTU of an ICMPv6 packet-too-big.
    IcmpMtu,
    /// IGMP type.
    IgmpType,
    /// Bytes of payload.
    PayloadSize,
    /// Number of VLAN tags.
    VlanLayers,
    /// The VLAN id of this layer.
    VlanId(Option<u8>),
    /// Seconds since the flow began.
    FlowAge,
    /// Packets of the flow, by who sent to whom: `Server` is to the server.
    FlowPackets(StreamSide),
    /// Bytes of the flow, likewise.
    FlowBytes(StreamSide),
}

/// How bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// The bits that the rule names.
    pub bits: u8,
    /// The bits that count.
    pub of: u8,
    /// In what way.
    pub mode: BitsMode,
}

/// The ways to compare bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitsMode {
    /// These and no others.
    Exactly,
    /// At least these.
    All,
    /// At least one of these.
    Any,
    /// Not all of these.
    Not,
}

impl Bits {
    /// Whether `value` matches.
    #[must_use]
    pub fn holds(&self, value: u8) -> bool {
        let value = value & self.of;
        match self.mode {
            BitsMode::Exactly => value == self.bits,
            BitsMode::All => value & self.bits == self.bits,
            BitsMode::Any => value & self.bits != 0,
            BitsMode::Not => value & self.bits != self.bits,
        }
    }
}

/// Whose bytes `stream_size` counts, and `flow.pkts` and `flow.bytes` to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamSide {
    /// The client's.
    Client,
    /// The server's.
    Server,
    /// Each of them must hold.
    Both,
    /// One of them must hold.
    Either,
}

/// Checksums that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksummed {
    /// The IPv4 header's.
    Ipv4,
    /// TCP over IPv4.
    Tcpv4,
    /// TCP over IPv6.
    Tcpv6,
    /// UDP over IPv4.
    Udpv4,
    /// UDP over IPv6.
    Udpv6,
    /// ICMP for IPv4.
    Icmpv4,
    /// ICMP for IPv6.
    Icmpv6,
    /// IGMP.
    Igmp,
}

/// A test of a transaction that is not of bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionTest {
    /// A number of the transaction; any of its values may match.
    Number(crate::app::Number, Compare),
    /// Some of a number's values.
    Several(crate::app::Number, super::several::Several),
    /// Versions of TLS: one of the first, none of the second.
    Versions(Vec<u64>, Vec<u64>),
    /// The certificate is valid at the packet's time, or is past its end.
    CertificateValid(bool),
    /// An event of the protocol's parser.
    Event(crate::app::Event),
    /// `PORT` with the address of another than who sends it.
    FtpBounce,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// What it is about.
    pub protocol: Protocol,
    /// The left addresses.
    pub source: Addresses,
    /// The left ports.
    pub source_ports: Ports,
    /// The right addresses.
    pub destination: Addresses,
    /// The right ports.
    pub destination_ports: Ports,
    /// How they relate.
    pub arrow: Arrow,
    /// Which directions of a flow it can match in, from `flow:` and its buffers.
    pub ways: Ways,
    /// Its number.
    pub sid: u32,
    /// The number of what made it; 1 unless it says otherwise.
    pub gid: u32,
    /// Its revision.
    pub rev: u32,
    /// Its message.
    pub msg: String,
    /// The name of its class, if it has one.
    pub classtype: Option<String>,
    /// The class's description.
    pub category: String,
    /// From 1, the gravest, to 255: its `priority`, or else its class's, or else 3.
    pub priority: u32,
    /// Kinds and values of its references.
    pub references: Vec<(String, String)>,
    /// Its metadata, in order.
    pub metadata: Vec<(String, String)>,
    /// `target`: whether the source is the target; `None` where it is not said.
    pub target_source: Option<bool>,
    /// It does not say when it matches.
    pub noalert: bool,
    /// After a match the flow is not inspected any more.
    pub bypass: bool,
    /// `flow`.
    pub flow: FlowTest,
    /// Tests of headers.
    pub headers: Vec<HeaderTest>,
    /// Tests of numbers and events of a transaction.
    pub transaction: Vec<TransactionTest>,
    /// Tests of bytes, by the buffer that they are about.
    pub sections: Vec<Section>,
    /// How many variables `byte_extract` and `byte_math` set.
    pub variables: usize,
    /// Bits, counters and the like: what must hold, and what is done on a match, in order.
    pub state: Vec<StateTest>,
    /// `threshold`.
    pub threshold: Option<Threshold>,
    /// `detection_filter`.
    pub detection_filter: Option<Filter>,
    /// Rules without content that ask to be looked up by their header test.
    pub prefilter: bool,
    /// Who evaluates it.
    pub kind: Kind,
    /// Raw `content` is asked of packets.
    pub of_packet: bool,
    /// Raw `content` is asked of the stream.
    pub of_stream: bool,
    /// The file that it came from.
    pub file: Option<Arc<PathBuf>>,
    /// The line that it starts at.
    pub line: usize,
}

impl Rule {
    /// Whether a section of payload asks anything.
    #[must_use]
    pub fn has_payload_tests(&self) -> bool {
        self.sections.iter().any(|section| section.place == super::test::Place::Payload)
    }

    /// All tests of bytes with a given property.
    pub(crate) fn any_test(&self, holds: impl Fn(&Test) -> bool) -> bool {
        self.sections.iter().any(|section| section.tests.iter().any(&holds))
    }
}
