use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn problems(text: &str, look: impl Fn(&Cursor<'_>)) -> String {
    let report = Report::new("f.yaml");
    if let Some(root) = read(text, &report) {
        look(&Cursor::new(&root, &report));
    }
    report.to_string()
}

fn syntax(text: &str) -> String {
    problems(text, |_| ())
}

#[test]
fn all_mistakes_are_told_with_their_places() {
    let text =
        "services:\n  firewall:\n    instnces: 2\n    id: 5000\n    core: many\n  # note\n  other: [1]\n";
    let told = problems(text, |root| {
        let top = root.table(&["services", "name"]).unwrap();
        assert!(top.need("name").is_none());
        for (_, service) in top.get("services").unwrap().entries().unwrap() {
            let Some(table) = service.table(&["instances", "id", "core"]) else { continue };
            assert_eq!(table.get("id").and_then(|c| c.number(1..=4095u16)), None);
            assert_eq!(table.get("core").and_then(|c| c.number(0..=9u8)), None);
        }
    });
    assert_eq!(
        told,
        "f.yaml:1:1: the key \"name\" is missing\n\
         f.yaml:3:5: services.firewall.instnces: unknown key; did you mean \"instances\"?\n\
         f.yaml:4:9: services.firewall.id: 5000 is out of range 1..=4095\n\
         f.yaml:5:11: services.firewall.core: a whole number is needed, not many\n\
         f.yaml:7:10: services.other: a mapping (key: value) is needed, not a list\n"
    );
}

#[test]
fn values_are_read_by_type() {
    let text = "a: 0x10\nb: 'x: y'\nc: [1, 2]\nd: 100ms\ne: True\nf: 0.5\ng: fast\nh: ~\ni: \"5\"\n";
    let report = Report::new("f");
    let root = read(text, &report).unwrap();
    let all = Cursor::new(&root, &report).table(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]).unwrap();
    let get = |key| all.get(key).unwrap();
    assert_eq!(get("a").number(0..=20u8), Some(16));
    assert_eq!(get("b").text(), Some("x: y"));
    assert_eq!(get("c").list().unwrap().iter().map(|c| c.number(0..=9u8).unwrap()).sum::<u8>(), 3);
    assert_eq!(get("a").one_or_many().len() + get("c").one_or_many().len(), 3);
    assert_eq!(get("d").duration(), Some(Duration::from_millis(100)));
    assert_eq!((get("e").boolean(), get("f").fraction(0.0..=1.0)), (Some(true), Some(0.5)));
    assert_eq!(get("g").choice(&[("fast", 1), ("slow", 2)]), Some(1));
    assert!(all.get("h").is_none());
    assert_eq!(get("i").number(0..=9u8), None);
    assert_eq!(get("g").choice(&[("fats", 1)]), None);
    assert_eq!(get("g").boolean(), None);
    assert_eq!(
        report.to_string(),
        "f:7:4: g: \"fast\" is not a choice; did you mean \"fats\"?\n\
         f:7:4: g: true or false is needed, not fast\n\
         f:8:1: h: this key has no value; give it one, or leave the key out\n\
         f:9:4: i: a whole number is needed, not the text \"5\"\n"
    );
}

#[test]
fn warnings_hide_no_error() {
    let report = Report::new("f");
    let place = |line| Some(Place { line, column: 1 });
    (1..=2 * Report::MOST).for_each(|line| report.add(Severity::Warning, place(line), "a", "odd"));
    assert!(!report.has_errors());
    report.add(Severity::Error, place(5000), "b", "wrong");
    assert!(report.has_errors() && report.to_string().ends_with("f:5000:1: b: wrong\n"));
    (1..=3 * Report::MOST).for_each(|line| report.add(Severity::Error, place(line), "c", "wrong"));
    assert_eq!(report.count(Severity::Error), 3 * Report::MOST + 1, "what is not kept is counted");
    assert_eq!(report.count(Severity::Warning), 2 * Report::MOST);
    assert_eq!(report.problems().len(), 2 * Report::MOST);
}

#[test]
fn what_has_no_value_does_not_mean_anything() {
    let told = problems("from:\nto: ~\nstate: []\nx:\n", |root| {
        let table = root.table(&["from", "to", "state"]).unwrap();
        assert!(table.get("from").is_none() && table.need("to").is_none());
        assert_eq!(table.get("state").unwrap().one_or_many().len(), 0);
    });
    assert_eq!(
        told,
        "f.yaml:1:1: from: this key has no value; give it one, or leave the key out\n\
         f.yaml:2:1: to: this key has no value; give it one, or leave the key out\n\
         f.yaml:3:8: state: this list is empty; give it members, or leave the key out\n\
         f.yaml:4:1: x: unknown key; keys are from, to, state\n"
    );
}

#[test]
fn broken_yaml_has_a_place() {
    assert!(syntax("a: [1, 2\nb: 3\n").starts_with("f.yaml:2:"), "{}", syntax("a: [1, 2\nb: 3\n"));
    assert_eq!(syntax("a:\n  b: 1\n  b: 2\n"), "f.yaml:3:3: a.b: this key stands here already, in line 2\n");
    assert_eq!(syntax("a: 1\n---\nb: 2\n"), "f.yaml:2:1: a second document: a file has one\n");
    assert_eq!(syntax("a: !!str 1"), "f.yaml:1:4: a tag (!): tags have no meaning here\n");
    assert_eq!(syntax("? [a]\n: 1"), "f.yaml:1:3: a list or mapping as a key: keys are words\n");
    assert_eq!(syntax("a: 1\nb\0: 2\n"), "f.yaml:2:1: a zero byte: this is no text\n");
    assert_eq!(syntax(""), "");
    assert_eq!(syntax("# nothing\n"), "");
    assert!(!syntax("a: &x [*x]").is_empty());
    assert!(!syntax("a: *y").is_empty());
}

#[test]
fn aliases_stand_for_what_they_name() {
    let report = Report::new("f");
    let root = read("a: &x {n: 1}\nb: *x\n", &report).unwrap();
    let Value::Mapping(all) = &root.value else { panic!("{root:?}") };
    assert_eq!((&all[0].1.value, all[1].1.place), (&all[1].1.value, Place { line: 2, column: 4 }));
}

#[test]
fn bounds_hold() {
    for open in ["[", "{a: ", "- ", "? "] {
        let told = syntax(&open.repeat(100_000));
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let one = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![one; 10].join(", "));
    }
    assert!(syntax(&laughs).contains("more than 1000000 values"));
    assert!(syntax(&"x".repeat(MAX_BYTES + 1)).contains("bytes are more than"));
    let within = |nodes| {
        let report = Report::new("f");
        let _ = read_within(Bounds { bytes: 20, nodes }, "[a, b, c]", &report);
        report.to_string()
    };
    assert_eq!((within(4).as_str(), within(3).contains("more than 3 values")), ("", true));
}

#[test]
fn durations_are_read() {
    let ms = Duration::from_millis;
    for (text, want) in [
        ("0.1", 100),
        ("100ms", 100),
        ("5s", 5000),
        ("2m", 120_000),
        ("1.5 s", 1500),
        ("0", 0),
        ("1h", 3_600_000),
    ] {
        assert_eq!(duration(text), Some(ms(want)), "{text}");
    }
    for wrong in ["", "s", "-1", "inf", "NaN", "1d", "1e400", "1e10", "ms", "1 2s"] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
}

#[test]
fn near_words_are_found() {
    let known = ["instances", "standby", "core"];
    for (word, near) in
        [("instnces", Some("instances")), ("Core", Some("core")), ("croe", Some("core")), ("zebra", None)]
    {
        assert_eq!(nearest(word, known), near);
    }
    assert_eq!(nearest(&"a".repeat(100_000), known), None);
}

/// Everything that can be asked of a tree.
fn walk(cursor: &Cursor<'_>) {
    let _ = (cursor.text(), cursor.number(0..=5u8), cursor.fraction(0.0..=1.0), cursor.boolean());
    let _ =
        (cursor.duration(), cursor.choice(&[("a", ())]), cursor.parsed::<u8>(), cursor.table(&["a", "bc"]));
    match &cursor.node().value {
        Value::List(_) => cursor.list().unwrap().iter().for_each(walk),
        Value::Mapping(_) => cursor.entries().unwrap().iter().for_each(|(_, c)| walk(c)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = problems(&text, walk);
    }

    #[test]
    fn no_yaml_makes_it_panic(parts in proptest::collection::vec(
        prop_oneof![
            "[-:,?&*!|>'\"%@`#\\[\\]{}~\n\t ]{1,4}", "[ab]", "\n {0,6}", "- ", ": ", "\\? ", "&a ", "\\*a ", "<<: ",
            "[|>][-+0-9]{0,2}\n", "---\n", "\\.\\.\\.\n", "%YAML 1.2\n", "'[^']{0,5}'", "\"\\\\[xuU0-9abnr]{0,9}\"", "\r", "\u{85}"
        ], 0..40))
    {
        let _ = problems(&parts.concat(), walk);
    }
}
