//! What the program is told on its command line.
