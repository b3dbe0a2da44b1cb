//! Which rules match: prefilter, evaluation, what they remember.
