use super::pattern::{Found, MatcherBuilder, best_part};

fn find(patterns: &[(&[u8], bool)], text: &[u8]) -> Vec<usize> {
    let mut builder = MatcherBuilder::default();
    let numbers: Vec<u32> = patterns.iter().map(|(p, nocase)| builder.add(p, *nocase)).collect();
    let matcher = builder.build();
    let mut found = Found::default();
    matcher.search(text, &mut found);
    (0..patterns.len()).filter(|i| found.patterns.contains(&numbers[*i])).collect()
}

#[test]
fn short_and_long_ones_are_found_with_and_without_case() {
    let patterns: &[(&[u8], bool)] =
        &[(b"a", false), (b"B", true), (b"xy", false), (b"Xyz", true), (b"hello", false), (b"HELLO", true)];
    assert_eq!(find(patterns, b"hello b"), [1, 4, 5]);
    assert_eq!(find(patterns, b"HeLLo xYz A"), [3, 5]);
    assert_eq!(find(patterns, b"hell"), Vec::<usize>::new());
    assert_eq!(find(patterns, b""), Vec::<usize>::new());
}

#[test]
fn every_size_of_table_finds_all_and_a_part_is_of_its_pattern() {
    for many in [10, 100, 400, 4_000] {
        let patterns: Vec<Vec<u8>> = (0..many)
            .map(|n: u32| [&n.wrapping_mul(0x9e37_79b1).to_be_bytes()[..], b"xy"].concat())
            .collect();
        let borrowed: Vec<(&[u8], bool)> = patterns.iter().map(|p| (p.as_slice(), false)).collect();
        assert_eq!(find(&borrowed, &patterns.concat()).len(), patterns.len(), "{many}");
    }
    let pattern = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x07\x08\x09\x0baaaaaaaaaaaaaaaaaaaaaa";
    let part = best_part(pattern, 32);
    assert!(part.len() == 32 && part.windows(4).any(|w| w == b"\x07\x08\x09\x0b"));
    assert!(
        best_part(b"\x07\x08\x09\x0baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 32).starts_with(b"\x07")
    );
    assert_eq!(best_part(b"abc", 32), b"abc");
}

#[test]
fn it_finds_what_a_plain_search_finds() {
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let letter = |r: u64| b"abAB\x00\xff"[usize::try_from(r).unwrap()];
        let mut patterns = Vec::new();
        for _ in 0..1 + random(40) {
            let length = 1 + random(9);
            patterns.push(((0..length).map(|_| letter(random(6))).collect::<Vec<u8>>(), random(2) == 0));
        }
        let text: Vec<u8> = (0..random(60)).map(|_| letter(random(6))).collect();
        let plain: Vec<usize> = (0..patterns.len())
            .filter(|i| {
                let (p, nocase) = &patterns[*i];
                text.windows(p.len())
                    .any(|w| if *nocase { w.eq_ignore_ascii_case(p) } else { w == p.as_slice() })
            })
            .collect();
        let borrowed: Vec<(&[u8], bool)> = patterns.iter().map(|(p, n)| (p.as_slice(), *n)).collect();
        assert_eq!(find(&borrowed, &text), plain, "{patterns:?} in {text:?}");
    }
}
