use std::sync::Arc;

use super::*;
use crate::rules::{Context, RuleSet};

/// Compiles rules.
fn tables(text: &str) -> Tables {
    let mut set = RuleSet::new(Context::default());
    set.add_text(text);
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    let (tables, refused) = Tables::new(set.rules);
    assert!(refused.is_empty());
    tables
}

#[test]
fn rules_are_in_the_order_of_their_actions_bits_and_priorities() {
    let tables = tables(
        "alert tcp any any -> any any (flowbits:isset,a; sid:1;)\n\
         alert tcp any any -> any any (content:\"x\"; flowbits:set,a; sid:2;)\n\
         alert tcp any any -> any any (content:\"x\"; priority:1; sid:3;)\n\
         drop tcp any any -> any any (content:\"x\"; sid:4;)\n\
         pass tcp any any -> any any (content:\"x\"; sid:5;)",
    );
    let order: Vec<u32> = tables.rules().map(|r| r.sid).collect();
    assert_eq!(order, [5, 4, 3, 2, 1]);
}

#[test]
fn an_expression_that_is_none_refuses_its_rule() {
    let mut set = RuleSet::new(Context::default());
    set.add_text("alert tcp any any -> any any (pcre:\"/(/\"; sid:1;)");
    let (tables, refused) = Tables::new(set.rules);
    assert_eq!((tables.size().rules, refused.len(), refused[0].sid), (0, 1, Some(1)));
}

#[test]
fn a_detector_counts_for_the_rules_in_force() {
    let mut detector = Detector::new(Arc::new(tables("alert ip any any -> any any (sid:1;)")));
    assert_eq!(detector.hits(), [0]);
    detector.replace(Arc::new(tables("")));
    assert!(detector.hits().is_empty());
}
