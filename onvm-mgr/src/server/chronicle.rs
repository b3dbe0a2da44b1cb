//! Events, told to those who ask for them and to those who follow them.

use serde_json::{Value, json};

use super::Server;

/// Events in one message.
const LOT: usize = 500;

impl Server {
    /// Tells events after a number; with `follow` the client stays on the line for those to come.
    pub(super) fn tell_events(&mut self, client: u64, after: u64, follow: bool) {
        let events: Vec<Value> = self.events.after(after).map(crate::events::Event::to_json).collect();
        if follow {
            self.followers.insert(client, self.events.last());
        }
        self.tell(client, json!({ "events": events }), true);
    }

    /// Tells followers what is new. One that does not read its line is hung up on.
    pub(super) fn tell_followers(&mut self) {
        let last = self.events.last();
        let behind: Vec<(u64, u64)> =
            self.followers.iter().filter(|(_, told)| **told < last).map(|(c, told)| (*c, *told)).collect();
        for (client, mut told) in behind {
            while told < last {
                let lot = self.events.after(told).take(LOT);
                let events: Vec<Value> = lot.map(crate::events::Event::to_json).collect();
                // What the log has dropped meanwhile shows in the numbers of those that follow.
                told = events.last().and_then(|event| event["number"].as_u64()).unwrap_or(last);
                self.followers.insert(client, told);
                if let Err(error) = self.try_to_tell(client, json!({ "events": events }), true) {
                    log::warn!("a follower of events does not read them, and is hung up on: {error}");
                    self.hang_up(client);
                    break;
                }
            }
        }
    }
}
