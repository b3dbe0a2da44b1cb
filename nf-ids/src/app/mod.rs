//! Application protocols: recognising them, and reading them into transactions with buffers.
