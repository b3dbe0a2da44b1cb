//! Putting IPv4 and IPv6 fragments together.
