//! Bodies: decoded, bounded, and as the files that they carry.

use super::decode::Decoder;
use super::multipart::Multipart;

/// One file that a message carries.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Its name.
    pub(super) name: Vec<u8>,
    /// Its content, as far as it is kept.
    pub(super) data: Vec<u8>,
    /// No more follows.
    pub(super) done: bool,
}

/// The body of one message.
#[derive(Debug, Default)]
pub(super) struct Body {
    decoder: Decoder,
    /// Decoded, at most [`Body::limit`] bytes.
    pub(super) data: Vec<u8>,
    /// Bytes that came, still encoded, whether they are kept or not.
    pub(super) received: u64,
    limit: usize,
    /// Files of a form (`multipart/form-data`).
    pub(super) form: Option<Multipart>,
    /// The body is a file.
    pub(super) is_file: bool,
}

impl Body {
    /// An empty one of which `limit` bytes will be kept.
    pub(super) fn new(limit: usize) -> Body {
        Body { limit, ..Body::default() }
    }

    /// Sets how it is encoded.
    pub(super) fn set_decoder(&mut self, decoder: Decoder) {
        self.decoder = decoder;
    }

    /// More bytes, still encoded. Whether decoding failed.
    pub(super) fn push(&mut self, bytes: &[u8], last: bool) -> bool {
        self.received += bytes.len() as u64;
        if self.data.len() >= self.limit {
            return false;
        }
        let start = self.data.len();
        let mut failed = false;
        if self.decoder.is_plain() {
            let room = bytes.len().min(self.limit - start);
            self.data.extend_from_slice(&bytes[..room]);
        } else {
            failed = self.decoder.push(bytes, &mut self.data, self.limit, last);
            self.data.truncate(self.limit);
            if self.is_full() {
                // Nothing more will be decoded.
                self.decoder = Decoder::default();
            }
        }
        if let Some(form) = &mut self.form {
            form.push(&self.data[start..], last);
        }
        failed
    }

    /// Whether no more is kept.
    pub(super) fn is_full(&self) -> bool {
        self.data.len() >= self.limit
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.data.capacity() + self.decoder.memory() + self.form.as_ref().map_or(0, Multipart::memory)
    }
}
