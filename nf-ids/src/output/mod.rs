//! Alerts and events for people and machines: EVE JSON, fast.log.
