//! From rule files to typed rules, with a reason for each that cannot be used.
