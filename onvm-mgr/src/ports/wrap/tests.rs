//! Wrapped ports: what comes out is what the account says, and the same again with the same seed.

use std::time::Duration;

use onvm_lib::capture::Reader;
use onvm_lib::pool::{Geometry, Pool};
use onvm_lib::shm::Pages;

use super::super::open;
use super::*;

const BUFFERS: u32 = 8192;

fn books() -> Books {
    Books::new(Pool::create(Geometry::new(BUFFERS, 2048).unwrap(), Pages::Plain).unwrap(), 1)
}

fn port(text: &str) -> Box<dyn Port> {
    open(&text.parse().unwrap(), books().pool()).unwrap()
}

fn add(sum: &mut Account, more: &Account) {
    sum.rx_dropped += more.rx_dropped;
    sum.rx_copies += more.rx_copies;
    sum.tx_copies += more.tx_copies;
    sum.sent += more.sent;
    sum.faulted += more.faulted;
    sum.rate_limited += more.rate_limited;
    sum.closed_upon += more.closed_upon;
}

/// The last eight bytes of what comes from a generator: the numbers of the packets, in their order, and the account.
fn received(text: &str) -> (Vec<u64>, Account) {
    let (mut port, mut books) = (port(text), books());
    let (mut numbers, mut sum) = (Vec::new(), Account::default());
    loop {
        let mut burst = Vec::new();
        let reception = port.receive(&mut books, &mut burst, 64);
        assert!(burst.len() <= 64);
        add(&mut sum, &port.settle());
        for packet in burst.drain(..) {
            numbers.push(u64::from_be_bytes(*packet.bytes(books.pool()).last_chunk().unwrap()));
            books.free(packet);
        }
        if reception == Reception::Finished {
            break;
        }
    }
    port.close(&mut books).unwrap();
    assert_eq!((books.free_count(), port.holds()), (BUFFERS, 0));
    (numbers, sum)
}

#[test]
fn a_port_without_options_is_not_wrapped() {
    assert!(!port("null:").settles() && !port("gen:rate=1M").settles() && port("null:rate=5").settles());
    assert!(port("gen:fault=rx:drop:1%").discards() && !port("gen:fault=drop:1%").discards());
}

#[test]
fn what_befalls_packets_depends_on_the_seed_alone() {
    let with = |fault: &str| received(&format!("gen:count=20000,sequence=1,fault={fault}"));
    let (numbers, sum) = with("drop:10%;duplicate:5%;reorder:2%;seed:7");
    assert_eq!(with("drop:10%;duplicate:5%;reorder:2%;seed:7"), (numbers.clone(), sum));
    assert_ne!(with("drop:10%;duplicate:5%;reorder:2%;seed:8").0, numbers);
    assert!((1800..2200).contains(&sum.faulted) && sum.rx_dropped == sum.faulted, "{sum:?}");
    assert!((750..1050).contains(&sum.rx_copies) && sum.tx_copies == 0, "{sum:?}");
    assert_eq!(numbers.len() as u64, 20_000 - sum.faulted + sum.rx_copies);
    // Dropped packets do not change the lot of the others.
    let fewer = with("duplicate:5%;reorder:2%;seed:7").1;
    assert_eq!(fewer.faulted, 0);
    assert!(fewer.rx_copies >= sum.rx_copies);
}

#[test]
fn packets_are_overtaken_by_as_many_as_was_said() {
    let (numbers, sum) = received("gen:count=5000,sequence=1,fault=reorder:1%/4");
    assert_eq!((numbers.len(), sum.faulted), (5000, 0));
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..5000));
    let mut late = 0;
    for (place, number) in numbers.iter().enumerate() {
        let overtaken_by = numbers[..place].iter().filter(|earlier| *earlier > number).count();
        late += usize::from(overtaken_by > 0);
        assert!(overtaken_by == 0 || overtaken_by >= 4 || place > 4990, "{number}: {overtaken_by}");
    }
    assert!((20..90).contains(&late), "{late}");
}

#[test]
fn delays_keep_the_order_and_the_buffers() {
    let begin = Instant::now();
    let (numbers, sum) = received("gen:count=6000,sequence=1,fault=delay:20ms/5ms");
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert_eq!((sum.faulted, sum.rx_copies), (0, 0));
    assert!(numbers.iter().copied().eq(0..6000), "a source that waits loses nothing");
}

/// Sends `packets` packets of a generator into a port with options; the frames that its file has then, and the account.
fn sent(options: &str, packets: usize) -> (Vec<Vec<u8>>, Account) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.pcap");
    let (mut port, mut books) = (port(&format!("pcap:out={},{options}", file.display())), books());
    let mut source = self::port(&format!("gen:count={packets},size=100,sequence=1"));
    let (mut sum, mut given) = (Account::default(), 0);
    loop {
        let mut burst = Vec::new();
        let _ = source.receive(&mut books, &mut burst, 32);
        given += burst.len();
        port.send(&mut books, &mut burst);
        assert!(burst.is_empty());
        add(&mut sum, &port.settle());
        if given == packets && port.holds_out() == 0 {
            break;
        }
    }
    port.close(&mut books).unwrap();
    add(&mut sum, &port.settle());
    assert_eq!((books.free_count(), sum.closed_upon), (BUFFERS, 0));
    let (mut reader, mut frames) = (Reader::open(&file).unwrap(), Vec::new());
    while let Some(frame) = reader.next_frame().unwrap() {
        frames.push(frame.data.to_vec());
    }
    assert_eq!(frames.len() as u64, sum.sent);
    assert_eq!(packets as u64 + sum.tx_copies, sum.sent + sum.faulted + sum.rate_limited);
    (frames, sum)
}

#[test]
fn what_is_sent_meets_the_faults_of_its_direction() {
    let (frames, sum) = sent("fault=tx:duplicate:10%/2;tx:drop:5%;delay:1ms;rx:drop:100%", 3000);
    assert!((450..750).contains(&sum.tx_copies) && (90..220).contains(&sum.faulted), "{sum:?}");
    let copies = frames.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(copies > 400, "copies go with what they are copies of: {copies}");
}

#[test]
fn as_many_bits_are_turned_as_was_said() {
    let (clean, _) = sent("rate=tx:1G", 500);
    let (frames, sum) = sent("fault=tx:corrupt:20%/3;seed:3", 500);
    assert_eq!((frames.len(), sum.faulted), (500, 0));
    let turned = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    let wrong: Vec<u32> =
        clean.iter().zip(&frames).map(|(a, b)| turned(a, b)).filter(|bits| *bits > 0).collect();
    assert!((70..130).contains(&wrong.len()), "{}", wrong.len());
    assert!(wrong.iter().all(|bits| matches!(bits, 1 | 3)) && wrong.contains(&3), "{wrong:?}");
}

#[test]
fn what_is_over_the_rate_is_dropped_or_left_where_it_is() {
    // Far more than the bucket holds, at once.
    let (frames, sum) = sent("rate=tx:10;burst:1s", 2000);
    assert!(sum.rate_limited >= 1900 && frames.len() >= 10, "{sum:?}");
    assert_eq!(sum.faulted, 0);
    let (numbers, sum) = received("gen:count=300,sequence=1,rate=100k");
    assert_eq!((numbers.len(), sum.rate_limited), (300, 0));
}

#[test]
fn what_waits_when_the_port_is_closed_is_accounted_for() {
    let (mut port, mut books) = (port("null:fault=delay:9s"), books());
    let mut source = self::port("gen:count=10");
    let mut burst = Vec::new();
    let _ = source.receive(&mut books, &mut burst, 32);
    port.send(&mut books, &mut burst);
    assert_eq!((burst.len(), port.holds(), port.holds_out()), (0, 10, 10));
    assert!(port.due(false).is_some());
    port.close(&mut books).unwrap();
    let account = port.settle();
    assert_eq!((account.closed_upon, account.sent, books.free_count()), (10, 0, BUFFERS));
}

#[test]
fn mistakes_are_named() {
    for (text, why) in [
        ("null:fault=drop", "\"drop\": \"\" is no probability"),
        ("null:fault=drop:101%", "\"101%\" is no probability: 0% to 100%"),
        ("null:fault=drop:1%/2", "there is no amount"),
        ("null:fault=dorp:1%", "did you mean \"drop\"?"),
        ("null:fault=corrupt:1%/9999", "out of range 1..=1024"),
        ("null:fault=delay:20s", "\"20s\" is no time up to 10 s"),
        ("null:fault=tx:seed:x", "a whole number"),
        ("null:fault=seed:5", "nothing would happen"),
        ("null:fault=drop:0%", "nothing would happen"),
        ("null:fault", "option \"fault\" has no value"),
    ] {
        let told = text
            .parse::<Spec>()
            .map_err(PortError::from)
            .and_then(|spec| open(&spec, books().pool()).map(drop));
        let told = told.unwrap_err().to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
}
