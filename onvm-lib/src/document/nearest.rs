//! The word that was probably meant.

/// Of `known`, the word that `word` is probably a misspelling of: the one with the fewest edits, if they are few. A
/// swap of two neighbouring letters is one edit.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No key or name is longer; the search takes time and room by the square.
    const LONGEST: usize = 100;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let edits = |k: &'a str| (strsim::osa_distance(&lower, &k.to_lowercase()), k);
    let best = known.into_iter().filter(|k| k.len() <= LONGEST).map(edits).min()?;
    (best.0 <= 1 + word.chars().count() / 4).then_some(best.1)
}
