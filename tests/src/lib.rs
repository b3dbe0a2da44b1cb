//! What the tests share: starting managers and network functions, and waiting for them.
