//! Completions and man pages, from the description of the command line. Pure.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;
use flate2::{Compression, GzBuilder};

/// A file below `share`, and what is in it.
pub(crate) type Page = (String, Vec<u8>);

/// Where each shell looks below `share`.
const SHELLS: &[(Shell, &str)] = &[
    (Shell::Bash, "bash-completion/completions/banger"),
    (Shell::Zsh, "zsh/site-functions/_banger"),
    (Shell::Fish, "fish/vendor_completions.d/banger.fish"),
];

pub(crate) fn completions(mut command: Command) -> Vec<Page> {
    let script = |(shell, path): &(Shell, &str)| {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut command, "banger", &mut text);
        ((*path).to_owned(), text)
    };
    SHELLS.iter().map(script).collect()
}

/// A page for each command that help lists, compressed as man(1) expects it.
pub(crate) fn man_pages(command: Command) -> std::io::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    append(&command, &mut pages)?;
    Ok(pages)
}

fn append(command: &Command, pages: &mut Vec<Page>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    man.render(&mut text)?;
    // Without a time, so that the same page is the same bytes.
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(&text)?;
    pages.push((format!("man/man1/{}.gz", man.get_filename()), packed.finish()?));
    command.get_subcommands().filter(|c| !c.is_hide_set()).try_for_each(|c| append(c, pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn each_listed_command_has_a_page_and_hidden_ones_have_none() {
        let pages = man_pages(crate::Cli::command()).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"man/man1/banger.1.gz") && names.contains(&"man/man1/banger-vm-run.1.gz"), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("embedded") || name.contains("help")), "{names:?}");
    }

    #[test]
    fn each_shell_has_its_script() {
        for (path, text) in completions(crate::Cli::command()) {
            assert!(String::from_utf8(text).unwrap().contains("banger"), "{path}");
        }
    }
}
