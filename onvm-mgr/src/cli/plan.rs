//! Commands that take a chain file, and how its options and the command line's become one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Subcommand};

use super::{Cli, Command, Common, Start, WatchCommand};
use crate::plan::Plan;
use crate::plan::file::{ChainFile, FileOption};

/// Every key of a chain file, at the end of `--help`.
pub(crate) const REFERENCE: &str = include_str!("../plan/file/reference.yaml");

/// All commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Commands {
    #[command(flatten)]
    Plan(PlanCommand),
    #[command(flatten)]
    Ask(Command),
    #[command(flatten)]
    Watch(WatchCommand),
}

/// Commands about what a manager shall run.
#[derive(Subcommand, Debug)]
pub(crate) enum PlanCommand {
    /// Start a manager and the NFs of a chain file
    #[command(after_long_help = REFERENCE)]
    Up(Box<Up>),
    /// Stop a running manager and wait until it has ended
    Down(Common),
    /// Check chain files; needs no manager; exit code 1 if one cannot be used
    #[command(after_long_help = REFERENCE)]
    Validate {
        /// Chain files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print a line of JSON for each file
        #[arg(long)]
        json: bool,
    },
    /// Show what `apply` would change; exit code 0 if nothing, 1 if something, 2 if it cannot be told
    Diff(OfFile),
    /// Change a running manager to what a chain file says; only what is different is touched
    Apply(OfFile),
}

/// Start a manager with a chain file.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Chain file; what the command line says, too, is as the command line says
    pub(crate) file: PathBuf,

    /// Go on in the background, with the output in a file beside the control socket (onvm.sock: onvm.log)
    #[arg(short = 'D', long)]
    pub(crate) detach: bool,

    /// This is the process in the background
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,

    #[command(flatten)]
    pub(crate) start: Start,
}

/// Hidden option of [`Up::in_background`].
pub(crate) const IN_BACKGROUND: &str = "--in-background";
/// The word for [`PlanCommand::Up`].
pub(crate) const UP: &str = "up";

/// A chain file and where to ask.
#[derive(Args, Debug)]
pub(crate) struct OfFile {
    /// Chain file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What a chain file and the command line say together: an option that the command line has counts, and not the file's.
///
/// # Errors
/// In words of the parser, when the two do not go together.
pub(crate) fn with_file(file: ChainFile, arguments: &[OsString]) -> Result<(Start, Plan), clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let inner = matches.subcommand_matches(UP);
    let given = inner.unwrap_or(&matches);
    // `up` can only be the first word: options before it are refused.
    let words = if inner.is_some() { 2 } else { 1 }.min(arguments.len());
    let mut all = arguments[..words].to_vec();
    all.extend(file.options.iter().filter(|option| !is_given(given, option)).map(FileOption::argument));
    all.extend_from_slice(&arguments[words..]);
    let cli = Cli::from_arg_matches(&Cli::command().try_get_matches_from(all)?)?;
    let start = match cli.command {
        Some(Commands::Plan(PlanCommand::Up(up))) => up.start,
        _ => cli.start,
    };
    let plan = file.plan.with_command_line(&start);
    Ok((start, plan))
}

fn is_given(matches: &ArgMatches, option: &FileOption) -> bool {
    let parser = Start::parser();
    let argument = parser.get_arguments().find(|a| a.get_long() == Some(option.name()));
    argument.is_some_and(|a| matches.value_source(a.get_id().as_str()) == Some(ValueSource::CommandLine))
}

/// The control socket that a client command of a chain file means: the command line's, else the file's.
pub(crate) fn socket<'a>(common: &'a Common, file: &'a ChainFile) -> Option<&'a Path> {
    let in_file = file.options.iter().find(|option| option.name() == "socket");
    common.socket.as_deref().or_else(|| in_file.and_then(FileOption::value).map(Path::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(text: &str, arguments: &[&str]) -> (Start, Plan) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        let file = crate::plan::file::load(&path);
        assert!(!file.report.has_errors(), "{}", file.report);
        let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        with_file(file, &arguments).unwrap()
    }

    const FILE: &str = "manager: {mtu: 9000, buffers: 1024, no-pin: true, isolate: [b]}\nports: [\"null:\", \"gen:\"]\n\
        services: {a: {}, b: {}}\nchains: {web: [a, b]}\n";

    #[test]
    fn the_command_line_counts_before_the_file() {
        for words in [&["onvm-mgr", "up", "c.yaml"][..], &["onvm-mgr", "--config", "c.yaml"]] {
            let (start, plan) = together(FILE, words);
            assert_eq!((start.mtu, start.buffers, start.ring_size, start.no_pin), (9000, 1024, 16_384, true));
            assert_eq!((plan.ports.len(), plan.default_chain.as_deref()), (2, Some("web")));
            assert!(plan.services[&2].isolated && !plan.services[&1].isolated);
            let mut words = words.to_vec();
            words.extend(["--mtu", "2000", "--port", "gen:size=99", "--chain", "2"]);
            let (start, plan) = together(FILE, &words);
            assert_eq!((start.mtu, start.buffers, start.ports.len()), (2000, 1024, 1));
            assert_eq!(plan.ports, ["gen:size=99"]);
            assert_eq!(
                (&plan.chains["default"][..], plan.default_chain.as_deref()),
                (&[2][..], Some("default"))
            );
        }
    }
}
