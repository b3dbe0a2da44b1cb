//! Detection.
mod alert;
mod base64;
mod chain;
#[cfg(test)]
mod chain_tests;
mod find;
mod names;
mod numbers;
mod pattern;
mod regex;
mod state;
mod threshold;
mod transform;
pub use alert::{Alert, Decision, Outcome};
pub use state::FlowState;
