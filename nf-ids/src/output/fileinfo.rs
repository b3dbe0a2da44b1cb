//! EVE's `fileinfo`: a file that a transaction carried.
//!
//! ```text
//! {"event_type":"fileinfo", …, "http":{…}, "app_proto":"http",
//!  "fileinfo":{"filename":"/a.txt","gaps":false,"state":"CLOSED","sha256":"2cf2…","stored":false,"size":5,"tx_id":0}}
//! ```
//! Of a file that is not whole (`TRUNCATED`: it was cut off, or is longer than what is kept) the size is what is known
//! of it, and there is no hash.

use crate::app::{Buffer, State};
use crate::flow::Direction;
use serde_json::{Value, json};
use sha1::Digest as _;
use std::fmt::Write as _;

/// Files of a direction of a transaction that are told.
const MOST: usize = 64;

/// The files that a transaction carried in a direction.
pub fn of_transaction(state: &State, id: u64, direction: Direction) -> Vec<Value> {
    let data = |index| state.buffer(id, Buffer::FileData, direction, index);
    let files = (0..MOST).map_while(|index| data(index).map(|data| (index, data)));
    let told = files.filter(|(_, data)| !data.is_empty()).map(|(index, data)| {
        let name = state.buffer(id, Buffer::FileName, direction, index).unwrap_or_default();
        let whole = state.has_whole_file(id, direction, index);
        let mut fields = json!({
            "filename": String::from_utf8_lossy(name),
            "gaps": false,
            "state": if whole { "CLOSED" } else { "TRUNCATED" },
            "stored": false,
            "size": data.len(),
            "tx_id": id,
        });
        if whole {
            let hash = sha2::Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            fields["sha256"] = hash.into();
        }
        fields
    });
    told.collect()
}
