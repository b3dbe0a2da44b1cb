//! In line: what hosts need to recover goes on, and what they might take unseen does not.

use super::*;

/// Shows frames to an engine in line; what becomes of each.
fn verdicts(engine: &mut Engine<Notes>, from_s: u64, frames: &[Vec<u8>]) -> Vec<Verdict> {
    engine.settings.ignore_checksums = true;
    let each = frames.iter().enumerate();
    each.map(|(n, frame)| engine.packet(frame, SECOND * (from_s + n as u64))).collect()
}

/// The same where nothing is to be dropped.
fn pass(engine: &mut Engine<Notes>, from_s: u64, frames: &[Vec<u8>]) {
    let became = verdicts(engine, from_s, frames);
    assert!(
        became.iter().all(|verdict| *verdict == Verdict::Pass),
        "{became:?} {:?}",
        engine.detection.events
    );
}

/// An engine in line that has seen a handshake.
fn begun(change: impl FnOnce(&mut Settings)) -> Engine<Notes> {
    let mut settings = Settings::of(Mode::Inline);
    change(&mut settings);
    let mut engine = Engine::new(settings, Notes::default());
    pass(&mut engine, 1, &handshake());
    engine
}

/// A segment with another sequence number.
fn with_seq(mut frame: Vec<u8>, seq: u32) -> Vec<u8> {
    frame[14 + 20 + 4..14 + 20 + 8].copy_from_slice(&seq.to_be_bytes());
    frame
}

fn with_ack(mut frame: Vec<u8>, ack: u32) -> Vec<u8> {
    frame[14 + 20 + 8..14 + 20 + 12].copy_from_slice(&ack.to_be_bytes());
    frame
}

#[test]
fn what_is_sent_again_because_its_acknowledgement_was_lost_goes_on() {
    for depth in [1 << 20, 8] {
        let mut engine = begun(|settings| settings.stream.depth = depth);
        let sent = [
            segment(true, 0x18, 1, 1, "0123456789"),
            segment(true, 0x18, 11, 1, "abcdefghij"),
            segment(false, 0x10, 1, 21, ""),
        ];
        pass(&mut engine, 10, &sent);
        // The acknowledgement came by, and no further.
        pass(&mut engine, 20, &[sent[0].clone(), sent[1].clone(), sent[2].clone()]);
        let both = segment(true, 0x18, 1, 1, "0123456789abcdefghij");
        pass(&mut engine, 30, &[both, segment(true, 0x18, 21, 1, "more")]);
        let far = segment(true, 0x18, 900_000, 1, "far");
        assert_eq!(verdicts(&mut engine, 40, &[far]), [Verdict::Drop], "may be taken");
    }
}

#[test]
fn what_is_sent_again_with_another_content_goes_no_further() {
    let mut engine = begun(|_| {});
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "good")]);
    let evil = segment(true, 0x18, 1, 1, "evil");
    assert_eq!(verdicts(&mut engine, 20, &[evil]), [Verdict::Drop]);
}

#[test]
fn an_acknowledgement_with_data_that_was_sent_before_opens_the_window() {
    let mut engine = begun(|_| {});
    let windowed = |mut frame: Vec<u8>, window: u16| {
        frame[14 + 20 + 14..14 + 20 + 16].copy_from_slice(&window.to_be_bytes());
        frame
    };
    pass(
        &mut engine,
        10,
        &[
            windowed(segment(false, 0x18, 1, 1, "answer"), 10),
            windowed(segment(false, 0x18, 7, 1, "more"), 10),
            segment(true, 0x10, 1, 11, ""),
            segment(true, 0x18, 1, 11, &"x".repeat(60_000)),
            // Only what is sent again tells that all of it was taken.
            windowed(segment(false, 0x18, 1, 60_001, "answer"), 60_000),
            segment(true, 0x18, 60_001, 11, &"y".repeat(60_000)),
        ],
    );
}

#[test]
fn a_client_that_was_restarted_begins_anew() {
    let mut engine = begun(|_| {});
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "old"), segment(false, 0x10, 1, 4, "")]);
    let syn = with_seq(segment(true, 2, 0, 0, ""), 0xF000_0000);
    // The server knows the former session yet: it acknowledges what it has, and the client resets that.
    let challenge = segment(false, 0x10, 1, 4, "");
    let reset = segment(true, 0x04, 4, 0, "");
    pass(&mut engine, 20, &[syn.clone(), challenge, reset, syn]);
    let answer = with_ack(with_seq(segment(false, 0x12, 0, 0, ""), 88_000), 0xF000_0001);
    let last = with_ack(with_seq(segment(true, 0x10, 0, 0, ""), 0xF000_0001), 88_001);
    let data = with_ack(with_seq(segment(true, 0x18, 0, 0, "new"), 0xF000_0001), 88_001);
    pass(&mut engine, 30, &[answer, last, data]);
    assert_eq!(told(&engine, Direction::ToServer), "oldnew", "it is followed");
    assert_eq!((engine.detection.ended, engine.flows()), (1, 1));
    let former = segment(true, 0x18, 4, 1, "former");
    assert_eq!(verdicts(&mut engine, 40, &[former]), [Verdict::Drop]);
}

#[test]
fn a_server_that_calls_back_from_its_port_begins_anew() {
    let mut engine = begun(|_| {});
    let syn = with_seq(segment(false, 2, 0, 0, ""), 777);
    let answer = with_ack(with_seq(segment(true, 0x12, 0, 0, ""), 88_000), 778);
    let last = with_ack(with_seq(segment(false, 0x10, 0, 0, ""), 778), 88_001);
    let data = with_ack(with_seq(segment(false, 0x18, 0, 0, "call"), 778), 88_001);
    pass(&mut engine, 10, &[syn, answer, last, data]);
    assert_eq!(told(&engine, Direction::ToServer), "call");
}

#[test]
fn a_syn_alone_changes_nothing_and_one_with_data_goes_no_further() {
    let mut engine = begun(|_| {});
    pass(&mut engine, 10, &[with_seq(segment(true, 2, 0, 0, ""), 777)]);
    // The answer to the former SYN, sent again, is none to this one.
    verdicts(&mut engine, 15, &[segment(true, 2, 0, 0, ""), segment(false, 0x12, 0, 1, "")]);
    pass(&mut engine, 20, &[segment(true, 0x18, 1, 1, "still")]);
    assert_eq!((told(&engine, Direction::ToServer).as_str(), engine.detection.ended), ("still", 0));
    let with_data = with_seq(segment(true, 2, 0, 0, "unseen"), 1_u32.wrapping_sub(9));
    assert_eq!(verdicts(&mut engine, 30, &[with_data]), [Verdict::Drop]);
}

#[test]
fn a_session_that_is_not_known_any_more_can_be_reset() {
    let mut engine = engine(Mode::Inline);
    let syn = stamped(true, 2, 0, 0, "", (1000, 0));
    // The server answers from a session of which nothing is known here, and is told so.
    let challenge = stamped(false, 0x10, 5000, 900_000, "", (77, 12));
    let reset = segment(true, 0x04, 900_000, 0, "");
    pass(&mut engine, 1, &[syn.clone(), challenge, reset, syn]);
    pass(
        &mut engine,
        10,
        &[
            stamped(false, 0x12, 0, 1, "", (80, 1000)),
            stamped(true, 0x10, 1, 1, "", (1001, 80)),
            stamped(true, 0x18, 1, 1, "data", (1001, 80)),
        ],
    );
    assert_eq!(told(&engine, Direction::ToServer), "data");
}

#[test]
fn a_fin_that_is_sent_again_and_a_reset_of_what_was_acknowledged_go_on() {
    let mut engine = begun(|_| {});
    let fin = segment(true, 0x11, 4, 1, "");
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "one"), fin.clone(), segment(false, 0x10, 1, 5, "")]);
    pass(&mut engine, 20, &[fin.clone(), segment(true, 0x18, 1, 1, "one"), fin]);
    let mut engine = begun(|_| {});
    // What was under way has not come to the receiver: he would take the reset.
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "lost"), segment(true, 0x14, 1, 1, "")]);
    assert_eq!(engine.detection.ended, 0);
}

#[test]
fn what_is_refused_keeps_no_flow_alive() {
    let mut engine = begun(|_| {});
    let idle_s = engine.settings.timeouts.tcp[1];
    let half = 1 + idle_s / 2;
    let far = segment(true, 0x18, 900_000, 1, "far");
    assert_eq!(verdicts(&mut engine, half, &[far]), [Verdict::Drop]);
    engine.tick(SECOND * (idle_s + half - 1));
    assert_eq!((engine.flows(), engine.detection.ended), (0, 1));
}

#[test]
fn sessions_in_their_midst_may_have_any_timestamps() {
    for (client, server) in [(5, 3_000_000_000), (3_000_000_000, 5), (5, 0)] {
        let mut settings = Settings::of(Mode::Inline);
        settings.stream.midstream = true;
        let mut engine = Engine::new(settings, Notes::default());
        pass(
            &mut engine,
            1,
            &[
                stamped(true, 0x18, 1, 1, "ask", (client, server)),
                stamped(false, 0x18, 1, 4, "tell", (server + 1, client)),
                stamped(true, 0x18, 4, 5, "more", (client + 1, server + 1)),
            ],
        );
        assert_eq!(told(&engine, Direction::ToClient), "tell");
    }
}

/// An engine in line that has seen a handshake with timestamps.
fn begun_with_stamps(client: u32) -> Engine<Notes> {
    let mut engine = engine(Mode::Inline);
    pass(
        &mut engine,
        1,
        &[
            stamped(true, 2, 0, 0, "", (client, 0)),
            stamped(false, 0x12, 0, 1, "", (500, client)),
            stamped(true, 0x10, 1, 1, "", (client, 500)),
        ],
    );
    engine
}

#[test]
fn a_sender_of_data_alone_moves_the_clock() {
    let mut engine = begun_with_stamps(100);
    let mut stamp = 100_u32;
    for n in 0..8 {
        stamp = stamp.wrapping_add(1 << 30);
        let data = stamped(true, 0x18, 1 + n * 4, 1, "data", (stamp, 500));
        let seen = stamped(false, 0x10, 1, 5 + n * 4, "", (501, stamp));
        pass(&mut engine, 10 + u64::from(n) * 2, &[data, seen]);
    }
    let old = stamped(true, 0x18, 33, 1, "data", (stamp.wrapping_sub(1000), 500));
    assert_eq!(verdicts(&mut engine, 40, &[old]), [Verdict::Drop]);
}

#[test]
fn what_overtakes_does_not_move_the_clock() {
    let mut engine = begun_with_stamps(100);
    pass(
        &mut engine,
        10,
        &[
            stamped(true, 0x10, 9, 1, "", (130, 500)),
            stamped(true, 0x18, 5, 1, "late", (120, 500)),
            stamped(true, 0x18, 9, 1, "last", (130, 500)),
            stamped(true, 0x18, 1, 1, "data", (110, 500)),
        ],
    );
    assert!(told(&engine, Direction::ToServer).ends_with("last"));
}

/// A segment with an urgent pointer.
fn urgent(seq: u32, data: &str, pointer: u16) -> Vec<u8> {
    let mut frame = segment(true, 0x38, seq, 1, data);
    frame[14 + 20 + 18..14 + 20 + 20].copy_from_slice(&pointer.to_be_bytes());
    frame
}

#[test]
fn the_byte_before_the_urgent_pointer_is_left_out_also_of_what_is_merged() {
    let mut engine = begun(|_| {});
    pass(
        &mut engine,
        10,
        &[
            urgent(1, "atUt", 3),
            urgent(5, "acU", 3),
            urgent(5, "acUU", 4),
            // All of it in one segment, with the latest pointer and with none; and more.
            urgent(1, "atUtacUU", 8),
            segment(true, 0x18, 1, 1, "atUtacUUk"),
            segment(true, 0x18, 10, 1, "!"),
        ],
    );
    assert_eq!(engine.detection.events, [""; 0]);
    let windows = &engine.detection.windows;
    assert!(windows.iter().any(|(_, text)| text.ends_with('!')), "{windows:?}");
    assert!(windows.iter().all(|(_, text)| !text.contains('U')), "{windows:?}");
}

#[test]
fn a_flow_that_is_dropped_ends_in_time_and_another_session_may_begin() {
    let doomed = || {
        let mut engine = begun(|_| {});
        (engine.detection.verdict, engine.detection.for_flow) = (Verdict::Drop, true);
        let evil = segment(true, 0x18, 1, 1, "evil");
        assert_eq!(verdicts(&mut engine, 10, &[evil]), [Verdict::Drop]);
        (engine.detection.verdict, engine.detection.for_flow) = (Verdict::Pass, false);
        engine
    };
    let mut engine = doomed();
    let again = segment(true, 0x18, 1, 1, "evil");
    let ack = segment(false, 0x10, 1, 1, "");
    assert_eq!(verdicts(&mut engine, 11, &[again.clone(), ack.clone()]), [Verdict::Drop; 2]);
    let syn = with_seq(segment(true, 2, 0, 0, ""), 0xF000_0000);
    pass(&mut engine, 20, &[syn.clone(), ack, segment(true, 0x04, 1, 0, ""), syn]);
    assert_eq!(
        verdicts(&mut engine, 25, std::slice::from_ref(&again)),
        [Verdict::Drop],
        "nobody has answered"
    );
    let answer = with_ack(with_seq(segment(false, 0x12, 0, 0, ""), 88_000), 0xF000_0001);
    let last = with_ack(with_seq(segment(true, 0x10, 0, 0, ""), 0xF000_0001), 88_001);
    let data = with_ack(with_seq(segment(true, 0x18, 0, 0, "new"), 0xF000_0001), 88_001);
    pass(&mut engine, 30, &[answer, last, data]);
    assert!(told(&engine, Direction::ToServer).ends_with("new"), "it is followed");
    // Who tries again and again keeps it no longer.
    let mut engine = doomed();
    let idle_s = engine.settings.timeouts.tcp[1];
    assert_eq!(verdicts(&mut engine, idle_s, std::slice::from_ref(&again)), [Verdict::Drop]);
    engine.tick(SECOND * (idle_s + 12));
    assert_eq!((engine.flows(), engine.detection.ended), (0, 1));
}

#[test]
fn what_never_came_to_the_session_is_not_shown_with_its_stream() {
    let mut engine = begun(|_| {});
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "once")]);
    engine.settings.ignore_checksums = false;
    let mut wrong = segment(true, 0x18, 5, 1, "wrong");
    wrong[14 + 20 + 16] ^= 1;
    engine.packet(&wrong, 11 * SECOND);
    assert_eq!(told(&engine, Direction::ToServer), "once");
}

#[test]
fn a_probe_may_carry_any_byte_that_was_acknowledged() {
    let mut engine = begun(|_| {});
    let probe = segment(true, 0x10, 4, 1, "\0");
    pass(&mut engine, 10, &[segment(true, 0x18, 1, 1, "data")]);
    assert_eq!(verdicts(&mut engine, 15, std::slice::from_ref(&probe)), [Verdict::Drop], "it may be taken");
    pass(&mut engine, 20, &[segment(false, 0x10, 1, 5, ""), probe, segment(false, 0x10, 1, 5, "")]);
}
