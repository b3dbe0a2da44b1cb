//! The IDS's program; all of it is in the library, so that tests can run the packet path in process.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    nf_ids::main()
}
