//! nf-loadbalancer: spreads connections over servers.
#![forbid(unsafe_code)]

pub mod config;
pub mod maglev;
