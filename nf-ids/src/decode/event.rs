//! What can be wrong with headers, by the names that `decode-event:` uses.
//!
//! The names are those of Suricata's `decoder-events.rules`, without the `decode-event:` in front.

/// Makes an enumeration of events, their names, and a set of them.
macro_rules! events {
    ($(#[$doc:meta])* $event:ident, $(#[$set_doc:meta])* $set:ident, $words:literal: $($name:literal $variant:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is told by its name")]
        pub enum $event { $($variant),+ }

        impl $event {
            /// All of them, with their names in rules.
            pub const ALL: &'static [($event, &'static str)] = &[$(($event::$variant, $name)),+];

            /// Its name in rules.
            #[must_use]
            pub fn name(self) -> &'static str {
                Self::ALL[self as usize].1
            }

            /// The event of that name; upper and lower case are one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(event, _)| *event)
            }
        }

        $(#[$set_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $set([u64; $words]);

        impl $set {
            /// Adds one.
            #[inline]
            pub fn set(&mut self, event: $event) {
                self.0[event as usize / 64] |= 1 << (event as usize % 64);
            }

            /// Whether it is there.
            #[inline]
            #[must_use]
            pub fn has(&self, event: $event) -> bool {
                self.0[event as usize / 64] >> (event as usize % 64) & 1 == 1
            }

            /// Whether there is none.
            #[inline]
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.0.iter().all(|word| *word == 0)
            }

            /// Adds all of another set.
            #[inline]
            pub fn add(&mut self, other: Self) {
                for (mine, theirs) in self.0.iter_mut().zip(other.0) {
                    *mine |= theirs;
                }
            }

            /// Those that are there.
            pub fn iter(&self) -> impl Iterator<Item = $event> + '_ {
                $event::ALL.iter().map(|(event, _)| *event).filter(|event| self.has(*event))
            }
        }
        const _: () = assert!($event::ALL.len() <= $words * 64);
    };
}
pub(crate) use events;

events! {
    /// Something wrong in the headers of a packet, or in how its fragments fit together.
    Event,
    /// A set of [`Event`]s.
    Events, 3:
    "ipv4.pkt_too_small" Ipv4TooSmall,
    "ipv4.hlen_too_small" Ipv4HeaderTooSmall,
    "ipv4.iplen_smaller_than_hlen" Ipv4LengthBelowHeader,
    "ipv4.trunc_pkt" Ipv4Truncated,
    "ipv4.opt_invalid" Ipv4OptionInvalid,
    "ipv4.opt_invalid_len" Ipv4OptionLength,
    "ipv4.opt_malformed" Ipv4OptionMalformed,
    "ipv4.opt_pad_required" Ipv4OptionPadding,
    "ipv4.opt_eol_required" Ipv4OptionEnd,
    "ipv4.opt_duplicate" Ipv4OptionDuplicate,
    "ipv4.opt_unknown" Ipv4OptionUnknown,
    "ipv4.wrong_ip_version" Ipv4WrongVersion,
    "ipv4.icmpv6" Ipv4Icmpv6,
    "ipv4.frag_pkt_too_large" Ipv4FragmentTooLarge,
    "ipv4.frag_overlap" Ipv4FragmentOverlap,
    "ipv4.frag_ignored" Ipv4FragmentIgnored,
    "icmpv4.pkt_too_small" Icmpv4TooSmall,
    "icmpv4.unknown_type" Icmpv4UnknownType,
    "icmpv4.unknown_code" Icmpv4UnknownCode,
    "icmpv4.ipv4_trunc_pkt" Icmpv4InnerTruncated,
    "icmpv4.ipv4_unknown_ver" Icmpv4InnerVersion,
    "icmpv6.unknown_type" Icmpv6UnknownType,
    "icmpv6.unknown_code" Icmpv6UnknownCode,
    "icmpv6.pkt_too_small" Icmpv6TooSmall,
    "icmpv6.ipv6_unknown_version" Icmpv6InnerVersion,
    "icmpv6.ipv6_trunc_pkt" Icmpv6InnerTruncated,
    "icmpv6.mld_message_with_invalid_hl" Icmpv6MldHopLimit,
    "icmpv6.unassigned_type" Icmpv6UnassignedType,
    "icmpv6.experimentation_type" Icmpv6ExperimentationType,
    "ipv6.pkt_too_small" Ipv6TooSmall,
    "ipv6.trunc_pkt" Ipv6Truncated,
    "ipv6.trunc_exthdr" Ipv6ExtensionTruncated,
    "ipv6.exthdr_dupl_fh" Ipv6DuplicateFragment,
    "ipv6.exthdr_useless_fh" Ipv6UselessFragment,
    "ipv6.exthdr_dupl_rh" Ipv6DuplicateRouting,
    "ipv6.exthdr_dupl_hh" Ipv6DuplicateHopByHop,
    "ipv6.exthdr_dupl_dh" Ipv6DuplicateDestination,
    "ipv6.exthdr_dupl_ah" Ipv6DuplicateAuthentication,
    "ipv6.exthdr_dupl_eh" Ipv6DuplicateEsp,
    "ipv6.exthdr_invalid_optlen" Ipv6OptionLength,
    "ipv6.wrong_ip_version" Ipv6WrongVersion,
    "ipv6.exthdr_ah_res_not_null" Ipv6AuthenticationReserved,
    "ipv6.hopopts_unknown_opt" Ipv6HopOptionUnknown,
    "ipv6.hopopts_only_padding" Ipv6HopOnlyPadding,
    "ipv6.dstopts_unknown_opt" Ipv6DestinationOptionUnknown,
    "ipv6.dstopts_only_padding" Ipv6DestinationOnlyPadding,
    "ipv6.rh_type_0" Ipv6RoutingType0,
    "ipv6.zero_len_padn" Ipv6EmptyPadding,
    "ipv6.fh_non_zero_reserved_field" Ipv6FragmentReserved,
    "ipv6.data_after_none_header" Ipv6DataAfterNone,
    "ipv6.unknown_next_header" Ipv6UnknownNext,
    "ipv6.icmpv4" Ipv6Icmpv4,
    "ipv6.frag_pkt_too_large" Ipv6FragmentTooLarge,
    "ipv6.frag_overlap" Ipv6FragmentOverlap,
    "ipv6.frag_invalid_length" Ipv6FragmentLength,
    "ipv6.frag_ignored" Ipv6FragmentIgnored,
    "ipv6.ipv4_in_ipv6_too_small" Ipv6Ipv4TooSmall,
    "ipv6.ipv4_in_ipv6_wrong_version" Ipv6Ipv4WrongVersion,
    "ipv6.ipv6_in_ipv6_too_small" Ipv6Ipv6TooSmall,
    "ipv6.ipv6_in_ipv6_wrong_version" Ipv6Ipv6WrongVersion,
    "tcp.pkt_too_small" TcpTooSmall,
    "tcp.hlen_too_small" TcpHeaderTooSmall,
    "tcp.invalid_optlen" TcpOptionsLength,
    "tcp.opt_invalid_len" TcpOptionLength,
    "tcp.opt_duplicate" TcpOptionDuplicate,
    "udp.pkt_too_small" UdpTooSmall,
    "udp.hlen_too_small" UdpLengthBelowHeader,
    "udp.hlen_invalid" UdpHeaderInvalid,
    "udp.len_invalid" UdpLengthInvalid,
    "sll.pkt_too_small" SllTooSmall,
    "sll2.pkt_too_small" Sll2TooSmall,
    "ethernet.pkt_too_small" EthernetTooSmall,
    "ethernet.unknown_ethertype" EthernetUnknownType,
    "ppp.pkt_too_small" PppTooSmall,
    "ppp.vju_pkt_too_small" PppVjuTooSmall,
    "ppp.ip4_pkt_too_small" PppIpv4TooSmall,
    "ppp.ip6_pkt_too_small" PppIpv6TooSmall,
    "ppp.wrong_type" PppWrongType,
    "ppp.unsup_proto" PppUnsupported,
    "pppoe.pkt_too_small" PppoeTooSmall,
    "pppoe.wrong_code" PppoeWrongCode,
    "pppoe.malformed_tags" PppoeMalformedTags,
    "gre.pkt_too_small" GreTooSmall,
    "gre.wrong_version" GreWrongVersion,
    "gre.version0_recur" GreRecursion,
    "gre.version0_flags" GreFlags,
    "gre.version0_hdr_too_big" GreHeaderTooBig,
    "gre.version0_malformed_sre_hdr" GreMalformedRoute,
    "gre.version1_chksum" Gre1Checksum,
    "gre.version1_route" Gre1Route,
    "gre.version1_ssr" Gre1StrictRoute,
    "gre.version1_recur" Gre1Recursion,
    "gre.version1_flags" Gre1Flags,
    "gre.version1_no_key" Gre1NoKey,
    "gre.version1_wrong_protocol" Gre1WrongProtocol,
    "gre.version1_malformed_sre_hdr" Gre1MalformedRoute,
    "gre.version1_hdr_too_big" Gre1HeaderTooBig,
    "vlan.header_too_small" VlanTooSmall,
    "vlan.unknown_type" VlanUnknownType,
    "vlan.too_many_layers" VlanTooManyLayers,
    "ieee8021ah.header_too_small" Ieee8021ahTooSmall,
    "vntag.header_too_small" VntagTooSmall,
    "vntag.unknown_type" VntagUnknownType,
    "etag.header_too_small" EtagTooSmall,
    "etag.unknown_type" EtagUnknownType,
    "ipraw.invalid_ip_version" RawWrongVersion,
    "ltnull.pkt_too_small" NullTooSmall,
    "ltnull.unsupported_type" NullUnsupported,
    "sctp.pkt_too_small" SctpTooSmall,
    "esp.pkt_too_small" EspTooSmall,
    "mpls.header_too_small" MplsHeaderTooSmall,
    "mpls.pkt_too_small" MplsTooSmall,
    "mpls.bad_label_router_alert" MplsRouterAlert,
    "mpls.bad_label_implicit_null" MplsImplicitNull,
    "mpls.bad_label_reserved" MplsReserved,
    "mpls.unknown_payload_type" MplsUnknownPayload,
    "vxlan.unknown_payload_type" VxlanUnknownPayload,
    "geneve.unknown_payload_type" GeneveUnknownPayload,
    "erspan.header_too_small" ErspanTooSmall,
    "erspan.unsupported_version" ErspanVersion,
    "erspan.too_many_vlan_layers" ErspanTooManyVlans,
    "dce.pkt_too_small" DceTooSmall,
    "chdlc.pkt_too_small" ChdlcTooSmall,
    "nsh.header_too_small" NshTooSmall,
    "nsh.unsupported_version" NshVersion,
    "nsh.bad_header_length" NshHeaderLength,
    "nsh.reserved_type" NshReservedType,
    "nsh.unsupported_type" NshUnsupportedType,
    "nsh.unknown_payload" NshUnknownPayload,
    "too_many_layers" TooManyLayers,
    "arp.pkt_too_small" ArpTooSmall,
    "arp.unsupported_hardware" ArpHardware,
    "arp.unsupported_protocol" ArpProtocol,
    "arp.unsupported_pkt" ArpUnsupported,
    "arp.invalid_hardware_size" ArpHardwareSize,
    "arp.invalid_protocol_size" ArpProtocolSize,
    "arp.unsupported_opcode" ArpOpcode,
}
