use super::chain::{Chain, Work};
use crate::rules::{Context, Place, RuleSet, Section};

/// Whether the options of a rule match a payload.
fn matches(options: &str, payload: &[u8]) -> bool {
    let mut set = RuleSet::new(Context::default());
    set.add_text(&format!("alert tcp any any -> any any ({options} sid:1;)"));
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    let rule = &set.rules[0];
    let chain = |s: &Section| Chain::new(s).unwrap();
    let (base64, other): (Vec<_>, Vec<_>) = rule.sections.iter().partition(|s| s.place == Place::Base64);
    let base64: Vec<Chain> = base64.into_iter().map(chain).collect();
    let mut work = Work::default();
    work.begin(rule.variables);
    other.into_iter().all(|s| work.matches(&chain(s), &base64, payload))
}

#[test]
fn contents_are_where_their_modifiers_say() {
    let text = b"GET /index.html HTTP/1.1";
    for (options, expected) in [
        ("content:\"GET\"; depth:3;", true),
        ("content:\"ET\"; depth:2;", false),
        ("content:\"ET\"; offset:1; depth:2;", true),
        ("content:\"get\"; nocase; startswith;", true),
        ("content:\"1.1\"; endswith;", true),
        ("content:\"1.\"; endswith;", false),
        ("content:\"GET \"; content:\"index\"; distance:1; within:5;", true),
        ("content:\"GET \"; content:\"index\"; distance:2;", false),
        ("content:\"index\"; content:\"GET\"; distance:-10; within:3;", true),
        ("content:!\"POST\";", true),
        ("content:!\"GET\"; offset:1;", true),
        ("content:\"html\"; content:!\"HTTP\"; within:10;", false),
        ("content:\"html\"; isdataat:9,relative;", true),
        ("content:\"html\"; isdataat:10,relative;", false),
        ("content:\"html\"; isdataat:!10,relative;", true),
        ("content:\"T\"; content:\"P/\"; distance:0; within:2;", true),
        ("pcre:\"/^get\\s+(\\S+)/i\";", true),
        ("content:\"html\"; pcre:\"/^ HTTP/R\";", true),
        ("content:\"html\"; pcre:\"/^HTTP/R\";", false),
        ("pcre:!\"/POST/\";", true),
    ] {
        assert_eq!(matches(options, text), expected, "{options}");
    }
}

#[test]
fn every_place_of_a_content_is_tried_for_what_counts_from_it() {
    assert!(matches("content:\"a\"; content:\"b\"; within:1; content:\"c\"; within:1;", b"a.ab.abc"));
    assert!(matches("pcre:\"/a./\"; content:\"z\"; within:1;", b"ab.acz"));
    assert!(!matches("content:\"a\"; content:\"b\"; within:1; content:\"d\"; within:1;", b"a.ab.abc"));
    // Whatever stands between them.
    for between in ["isdataat:3;", "content:!\"z\";", "byte_test:1,=,97,0;", "pcre:!\"/z/\";"] {
        let rule = format!("content:\"a\"; {between} content:\"b\"; within:1;");
        assert!(matches(&rule, b"a.ab"), "{rule}");
    }
}

#[test]
fn numbers_are_tested_jumped_over_and_kept() {
    let bytes = b"\x00\x05hello\x03foo\x0912";
    for (options, expected) in [
        ("byte_test:2,=,5,0;", true),
        ("byte_test:1,!>,4,1;", false),
        ("byte_test:1,&,4,1;", true),
        ("byte_jump:2,0; content:\"|03|\"; within:1;", true),
        ("byte_jump:2,0; byte_jump:1,0,relative; content:\"|09|\"; within:1;", true),
        ("byte_jump:1,1,from_end; content:\"a\"; distance:0;", false),
        ("byte_extract:1,1,size; content:\"foo\"; offset:size; depth:6;", true),
        ("byte_extract:1,1,size; content:\"hello\"; offset:2; depth:size;", true),
        (
            "byte_math:bytes 1, offset 1, oper +, rvalue 3, result r; content:\"foo\"; offset:r; depth:3;",
            true,
        ),
        ("content:\"|09|\"; byte_test:2,=,12,0,relative,string,dec;", true),
        ("content:\"|09|\"; byte_test:3,=,12,0,relative,string,dec;", false),
        ("content:\"hello\"; byte_jump:0,0,relative,post_offset -5; content:\"hello\"; within:5;", true),
        ("content:\"hello\"; byte_jump:0,0,relative,post_offset -50; content:\"|00 05|\"; within:2;", true),
    ] {
        assert_eq!(matches(options, bytes), expected, "{options}");
    }
}

#[test]
fn decoded_bytes_are_asked() {
    let text = b"x=Zm9vYmFy";
    assert!(matches("content:\"x=\"; base64_decode:relative; base64_data; content:\"bar\"; endswith;", text));
    assert!(!matches("base64_decode:bytes 4, offset 2; base64_data; content:\"bar\";", text));
    assert!(matches("base64_decode:bytes 4, offset 2; base64_data; content:\"foo\";", text));
    // It ends at what is not of the alphabet.
    assert!(!matches("base64_decode; base64_data; content:\"foobar\";", b"Zm 9v Ym Fy"));
}

#[test]
fn hostile_bytes_end_in_bounded_time() {
    let many = vec![b'a'; 65_536];
    let rule =
        "content:\"a\"; content:\"a\"; distance:0; content:\"a\"; distance:0; content:\"b\"; distance:0;";
    assert!(!matches(rule, &many));
    assert!(!matches("pcre:\"/(a+)+$/\"; content:\"b\"; within:1;", &many));
    let rule = "content:\"a\"; content:!\"b\"; distance:0; content:\"c\"; within:1;";
    assert!(!matches(rule, &vec![b'a'; 1 << 20]));
}
