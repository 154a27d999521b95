//! `/etc/hosts`: the guest's own names, among whatever else stands there.

/// Debian's address for a host's own name, so that it resolves with no network too.
const OWN: &str = "127.0.1.1";
const STANDARD: [(&str, &str); 2] = [("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback")];

/// The file with `hostname` as this host's name. Lines of others stay, and rendering again changes nothing.
pub(super) fn render(old: &str, hostname: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (address, names) in STANDARD {
        if !old.lines().any(|line| address_of(line) == Some(address)) {
            lines.push(format!("{address}\t{names}"));
        }
    }
    lines.extend(old.lines().filter(|line| address_of(line) != Some(OWN)).map(str::to_owned));
    lines.push(format!("{OWN}\t{hostname}"));
    lines.join("\n") + "\n"
}

fn address_of(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gets_the_standard_lines() {
        let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n";
        assert_eq!(render("", "box"), hosts);
        assert_eq!(render(hosts, "box"), hosts);
    }

    #[test]
    fn lines_of_the_user_stay_and_an_older_name_goes() {
        let old = "127.0.0.1 localhost db\n::1 localhost\n# mine\n127.0.1.1 old\n10.1.2.3 printer\n";
        assert_eq!(
            render(old, "new"),
            "127.0.0.1 localhost db\n::1 localhost\n# mine\n10.1.2.3 printer\n127.0.1.1\tnew\n"
        );
    }
}
