//! The packets of a burst that the cache does not know, looked up together: their waits for memory overlap.
//!
//! What is found for each is the first rule whose five fields it matches. That is the answer where this rule asks for no
//! more, or for what the packet has; else the rules after it are searched one packet at a time.

use onvm_classifier::{Classifier, Header, NONE};

/// Fewer than so many are not worth the preparation.
const FEWEST: usize = 4;

/// What is known of a burst's packets, by place.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Index of the first five-field rule, or [`NONE`]; the outer none where nobody looked.
    found: Vec<Option<u32>>,
    /// Of those that are looked up: where they stand in the burst, and their headers.
    places: Vec<usize>,
    headers: Vec<Header>,
    answers: Vec<u32>,
}

impl Ahead {
    /// A burst of so many packets begins.
    pub(crate) fn begin(&mut self, packets: usize) {
        self.found.clear();
        self.found.resize(packets, None);
        self.places.clear();
        self.headers.clear();
    }

    /// The packet at this place is to be looked up.
    pub(crate) fn ask(&mut self, place: usize, header: Header) {
        self.places.push(place);
        self.headers.push(header);
    }

    /// Looks up all that were asked for.
    pub(crate) fn look(&mut self, classifier: &Classifier) {
        if self.headers.len() < FEWEST {
            return;
        }
        self.answers.clear();
        self.answers.resize(self.headers.len(), NONE);
        classifier.classify_burst(&self.headers, &mut self.answers);
        for (place, answer) in self.places.iter().zip(&self.answers) {
            if let Some(found) = self.found.get_mut(*place) {
                *found = Some(*answer);
            }
        }
    }

    /// What was found for the packet at this place.
    #[inline]
    pub(crate) fn of(&self, place: usize) -> Option<u32> {
        self.found.get(place).copied().flatten()
    }
}
