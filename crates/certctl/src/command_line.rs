//! The command line as a whole.

use std::path::PathBuf;

use clap::Parser;

use crate::{nouns::Noun, output::Output, settings::Settings};

/// The command line of certseal's operators and security team.
#[derive(Debug, Parser)]
#[command(name = "certctl", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    noun: Noun,
    /// Print JSON: the result on standard output, an error on standard error
    #[arg(long, global = true)]
    json: bool,
    /// TOML file with connection settings, named like the flags with `_` for `-`
    #[arg(long, global = true, env = "CERTCTL_CONFIG", value_name = "FILE", help_heading = "Connection")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl CommandLine {
    /// Does what it says.
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { noun, config, settings, json: _ } = self;
        let settings = || match &config {
            Some(path) => settings.or_from(path),
            None => Ok(settings),
        };
        noun.run(settings, output).await
    }
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done, also when there was nothing to do
  1  refused or failed
  2  the command line or the settings are not complete
  3  a daemon cannot be reached, or the time is over: try again
  4  there is no such thing";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::nouns::{AuditCommand, SiteCommand};

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn global_settings_may_follow_the_command() {
        let words = "certctl site add a.example --name b.example --upstream http://h:1 --pool eu --json";
        let line = CommandLine::try_parse_from(words.split(' ')).unwrap();
        assert!(line.json);
        let Noun::Site(SiteCommand::Add(add)) = line.noun else { panic!("another command") };
        assert_eq!(add.aliases, ["b.example".parse().unwrap()]);
    }

    #[test]
    fn values_are_checked_before_anything_is_sent() {
        for args in [
            ["site", "status", "localhost"].as_slice(),
            &["site", "add", "a.example", "--upstream", "http://h:1"],
            &["site", "add", "a.example", "--upstream", "https://h:1", "--pool", "eu"],
            &["site", "add", "a.example", "--upstream", "http://h:1", "--pool", "eu", "--timeout", "5"],
            &["pki", "init", "--dir", "d", "--pool", "EU"],
            &["pki", "issue", "--dir", "d", "--role", "root", "--name", "x"],
            &["keys", "generate", "--pool", "eu"],
            &["keys", "generate", "--pool", "eu", "--out", "f", "--token", "pkcs11:token=t"],
            &["pki", "init", "--dir", "d", "--server-name", "a b"],
            &["bundle", "deletions", "--within", "0"],
            &["backup", "create"],
        ] {
            let all = ["certctl"].iter().chain(args);
            assert!(CommandLine::try_parse_from(all).is_err(), "{args:?}");
        }
    }

    #[test]
    fn marks_actions_and_times_are_checked_before_anything_is_sent() {
        let mark = format!("7:{}", "0a".repeat(32));
        let line = CommandLine::try_parse_from(["certctl", "audit", "verify", "--expect", mark.as_str()]).unwrap();
        let Noun::Audit(AuditCommand::Verify(args)) = line.noun else { panic!("another command") };
        assert_eq!(args.expect.map(|mark| mark.number), Some(7));
        for args in [
            ["verify", "--expect", "7"].as_slice(),
            &["search", "--action", "put-nothing"],
            &["search", "--since", "yesterday"],
            &["tail", "--lines", "all"],
            &["export"],
        ] {
            assert!(CommandLine::try_parse_from(["certctl", "audit"].iter().chain(args)).is_err(), "{args:?}");
        }
    }
}
