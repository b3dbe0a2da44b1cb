use super::*;

const LINE: &str = "@10.1.0.0/16\t192.168.7.1/32\t0 : 65535\t80 : 81\t0x06/0xFF\t0x1000/0x1200\t\n";

#[test]
fn a_filter_is_read_with_tabs_blanks_or_neither() {
    let expected = Rule5 {
        source: Some("10.1.0.0/16".parse().unwrap()),
        destination: Some("192.168.7.1/32".parse().unwrap()),
        source_ports: Ports::ANY,
        destination_ports: Ports::range(80, 81),
        protocol: 6,
        protocol_mask: 0xFF,
    };
    let found = filters("a", LINE).unwrap();
    assert_eq!(found, [Filter { rule: expected, flags: 0x1000, flags_mask: 0x1200, line: 1 }]);
    let narrow = "# a set\n\n @10.1.0.0/16 192.168.7.1 0:65535 80: 81 6/255\r\n";
    let found = filters("a", narrow).unwrap();
    assert_eq!(found, [Filter { rule: expected, flags: 0, flags_mask: 0, line: 3 }]);
    let v6 = filters("a", "@2001:db8::/32 ::/0 0 : 65535 53 : 53 0x11/0xFF").unwrap();
    assert_eq!(v6[0].rule.source, Some("2001:db8::/32".parse().unwrap()));
}

#[test]
fn a_trace_is_read_by_its_first_five_columns() {
    let found =
        trace("t", "167837697\t3232237313\t40000\t80\t6\t33559040\t148\n1.2.3.4 5.6.7.8 0 0 1\n").unwrap();
    let first = Header::v4([10, 1, 0, 1].into(), [192, 168, 7, 1].into(), 40000, 80, 6);
    assert_eq!(found, [first, Header::v4([1, 2, 3, 4].into(), [5, 6, 7, 8].into(), 0, 0, 1)]);
}

/// What an error says of `line`, without the name of the file.
fn complaint(line: &str) -> String {
    let error = filters("f", line).unwrap_err().to_string();
    error.strip_prefix("f:").unwrap().to_string()
}

#[test]
fn mistakes_are_told_with_line_column_and_field() {
    let second = format!("{LINE}@10.0.0.0/33 0.0.0.0/0 0 : 1 0 : 1 0/0");
    assert_eq!(complaint(&second), "2:2: source prefix: `10.0.0.0/33` has no prefix length of 0..=32");
    assert_eq!(complaint("10.0.0.0/8"), "1:1: filter: a filter begins with `@`");
    assert_eq!(
        complaint("@10.0.0.0/8 10.0.0/8 "),
        "1:13: destination prefix: `10.0.0` is not an IPv4 or IPv6 address"
    );
    assert_eq!(complaint("@10.0.0.0/8"), "1:12: destination prefix: the line ends here");
    assert_eq!(
        complaint("@1.0.0.0/8 1.0.0.0/8 0 : 65536"),
        "1:26: source ports: 65536 is out of range 0..=65535"
    );
    assert_eq!(
        complaint("@1.0.0.0/8 1.0.0.0/8 9 : 8 "),
        "1:26: source ports: the range 9 : 8 ends before it begins"
    );
    assert_eq!(
        complaint("@1.0.0.0/8 1.0.0.0/8 9 8 "),
        "1:24: source ports: a range is written `first : last`"
    );
    let before = "@1.0.0.0/8 1.0.0.0/8 0 : 1 0 : 1";
    assert_eq!(complaint(&format!("{before} 6")), "1:34: protocol: `6` is not of the form value/mask");
    assert_eq!(complaint(&format!("{before} 0x100/0xFF")), "1:34: protocol: 0x100 is out of range 0..=255");
    assert_eq!(complaint(&format!("{before} 6/x")), "1:34: protocol: `x` is not a number");
    assert_eq!(
        complaint(&format!("{before} 6/255 0/0 more")),
        "1:44: end of line: `more` is one field too many"
    );
    let error = trace("t", "1 2 3 4 5\n1 2 3 4 256").unwrap_err().to_string();
    assert_eq!(error, "t:2:9: protocol: 256 is out of range 0..=255");
    let error = trace("t", "1 ::1 3 4 5").unwrap_err().to_string();
    assert!(error.ends_with("0.0.0.1 and ::1 are of different families"), "{error}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[@0-9a-fx/.: \t\n#-]{0,80}") {
        let _ = filters("f", &text);
        let _ = trace("t", &text);
    }
}
