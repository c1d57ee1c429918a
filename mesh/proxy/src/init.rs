//! The role `meshgate proxy-init`: redirects a pod's TCP connections to its proxy, from inside the pod's network namespace.
//!
//! The rules are those of Linkerd's `proxy-init`, in nftables: inbound connections go to the inbound port, outbound ones
//! to the outbound port, but for the ports to ignore, for loopback, and for what the proxy itself sends. The proxy is told
//! by its socket mark, which also works where its user id is not mapped, or by its user id.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, Write as _},
    ops::RangeInclusive,
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;

/// The priority before a Service's destination NAT at -100, so that the proxy sees the Service's address.
const PRIORITY: i32 = -101;

/// Redirects the traffic of a pod to its proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "meshgate proxy-init")]
pub struct Options {
    /// Port of the proxy for connections to the pod
    #[arg(long, default_value_t = 4143)]
    pub incoming_proxy_port: u16,
    /// Port of the proxy for connections from the pod
    #[arg(long, default_value_t = 4140)]
    pub outgoing_proxy_port: u16,
    /// User whose connections are not redirected
    #[arg(long)]
    pub proxy_uid: Option<u32>,
    /// Socket mark with which connections are not redirected
    #[arg(long, default_value = "0x2102", value_parser = mark)]
    pub proxy_mark: u32,
    /// Ports, and ranges of them, to which connections are not redirected on their way into the pod
    #[arg(long, value_delimiter = ',', value_parser = ports)]
    pub inbound_ports_to_ignore: Vec<RangeInclusive<u16>>,
    /// Ports, and ranges of them, to which connections are not redirected on their way out of the pod
    #[arg(long, value_delimiter = ',', value_parser = ports)]
    pub outbound_ports_to_ignore: Vec<RangeInclusive<u16>>,
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is no `nft` to run.
    #[error("cannot run `{program}`: {source}; install nftables, or set MESHGATE_NFT to the program")]
    Run {
        /// What was run.
        program: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// `nft` did not accept the rules.
    #[error("`{program}` did not accept the rules ({status}): {message}; they need CAP_NET_ADMIN in the pod")]
    Rejected {
        /// What was run.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        message: String,
    },
}

/// Runs the role with the command line's arguments, the role's own name not among them. Exits with 2 if they are wrong and
/// with 1 if the rules could not be set.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let program = OsString::from("proxy-init");
    let options = match Options::try_parse_from([program].into_iter().chain(arguments)) {
        Ok(options) => options,
        Err(error) => {
            // What is printed is all there is to say; a closed pipe changes nothing about it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let nft = env::var_os("MESHGATE_NFT").unwrap_or_else(|| "nft".into());
    match apply(&options, &nft) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshgate proxy-init: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the rules with the program `nft`, in the network namespace of this process. They replace rules set before.
///
/// # Errors
///
/// See [`InitError`].
pub fn apply(options: &Options, nft: &OsStr) -> Result<(), InitError> {
    let run = |source| InitError::Run { program: nft.to_string_lossy().into_owned(), source };
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(rules(options).as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(run(error));
    }
    let output = child.wait_with_output().map_err(run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(InitError::Rejected {
        program: nft.to_string_lossy().into_owned(),
        status: output.status.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The rules, as `nft -f` reads them.
fn rules(options: &Options) -> String {
    let Options { incoming_proxy_port, outgoing_proxy_port, proxy_mark, .. } = options;
    let ignore = |ports: &[RangeInclusive<u16>]| match ports {
        [] => String::new(),
        ports => format!("    meta l4proto tcp tcp dport {{ {} }} accept\n", joined(ports)),
    };
    let mut rules = String::from("table ip l5d\ndelete table ip l5d\ntable ip l5d {\n");
    // Writing into a String cannot fail.
    let _ = write!(rules, "  chain out {{\n    type nat hook output priority {PRIORITY};\n");
    let _ = writeln!(rules, "    meta mark {proxy_mark:#x} accept");
    if let Some(uid) = options.proxy_uid {
        let _ = writeln!(rules, "    meta skuid {uid} accept");
    }
    rules.push_str("    oifname \"lo\" accept\n");
    rules.push_str(&ignore(&options.outbound_ports_to_ignore));
    let _ = write!(rules, "    meta l4proto tcp redirect to :{outgoing_proxy_port}\n  }}\n");
    let _ = write!(rules, "  chain in {{\n    type nat hook prerouting priority {PRIORITY};\n");
    rules.push_str("    iifname \"lo\" accept\n");
    rules.push_str(&ignore(&options.inbound_ports_to_ignore));
    let _ = write!(rules, "    meta l4proto tcp redirect to :{incoming_proxy_port}\n  }}\n}}\n");
    rules
}

/// Ports and ranges for an nft set, which refuses elements that overlap.
fn joined(ports: &[RangeInclusive<u16>]) -> String {
    let mut sorted: Vec<_> = ports.iter().map(|range| (*range.start(), *range.end())).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    let texts: Vec<_> = merged
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    texts.join(", ")
}

fn ports(value: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let port = |port: &str| port.trim().parse::<u16>().ok();
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("expected a port or a range such as `4000-4100`, found `{value}`")),
    }
}

fn mark(value: &str) -> Result<u32, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| format!("expected a number such as `0x2102` or `8450`, found `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        Options::try_parse_from([&["proxy-init"], arguments].concat()).unwrap()
    }

    #[test]
    fn linkerds_flags_become_rules() {
        let options = parse(&[
            "--incoming-proxy-port",
            "4143",
            "--outgoing-proxy-port",
            "4140",
            "--proxy-uid",
            "2102",
            "--inbound-ports-to-ignore",
            "4190,4191,4567-4568,4568",
            "--outbound-ports-to-ignore",
            "25",
        ]);
        let expected = "table ip l5d
delete table ip l5d
table ip l5d {
  chain out {
    type nat hook output priority -101;
    meta mark 0x2102 accept
    meta skuid 2102 accept
    oifname \"lo\" accept
    meta l4proto tcp tcp dport { 25 } accept
    meta l4proto tcp redirect to :4140
  }
  chain in {
    type nat hook prerouting priority -101;
    iifname \"lo\" accept
    meta l4proto tcp tcp dport { 4190-4191, 4567-4568 } accept
    meta l4proto tcp redirect to :4143
  }
}
";
        assert_eq!(rules(&options), expected);
    }

    #[test]
    fn nothing_to_ignore_needs_no_rule() {
        assert!(!rules(&parse(&[])).contains("dport"));
    }

    #[test]
    fn wrong_ports_are_refused() {
        for wrong in ["http", "70000", "5-1"] {
            let parsed = Options::try_parse_from(["proxy-init", "--inbound-ports-to-ignore", wrong]);
            assert!(parsed.unwrap_err().to_string().contains("expected a port"), "{wrong}");
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = apply(&parse(&[]), OsStr::new("/nonexistent/nft")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/nft") && error.contains("MESHGATE_NFT"), "{error}");
    }
}
