//! `backend-config-snippet`: lines of an annotation in a backend, and which of them HAProxy refuses.
//!
//! Each has a comment above it that says whose it is, so that from the number of a line that HAProxy does not take its origin is found.

use super::model::Snippet;

/// What ends a snippet.
pub(crate) const END: &str = "###_config-snippet_### END";

/// What the line above a snippet begins with.
const HEAD: &str = "### ";

/// The lines of an annotation. One that looks like what is around a snippet would hide whose it is.
pub(crate) fn lines(written: &str) -> impl Iterator<Item = &str> {
    written.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.trim_start().starts_with("###"))
}

/// The line above a snippet.
pub(crate) fn head(backend: &str, snippet: &Snippet) -> String {
    let kind = if snippet.of_ingress { "ingress" } else { "service" };
    format!("{HEAD}{kind}:{backend}/{} ###", snippet.origin)
}

/// A configuration without the snippets in which HAProxy found something wrong, with what it said of each; none where it said nothing of
/// a snippet.
pub(crate) fn without_faulty(configuration: &str, said: &str) -> Option<(String, Vec<String>)> {
    let lines: Vec<&str> = configuration.lines().collect();
    let mut faulty = vec![false; lines.len()];
    let mut faults = Vec::new();
    for line in said.lines() {
        let Some(number) = number(line) else { continue };
        let Some(before) = number.checked_sub(1).and_then(|index| lines.get(..index)) else { continue };
        // From there up to the begin of a snippet, unless another one ends or the section begins before that.
        let is_edge = |line: &&str| line.trim() == END || !line.starts_with(' ') || line.trim_start().starts_with(HEAD);
        let Some(begin) = before.iter().rposition(is_edge) else { continue };
        let Some(origin) = before[begin].trim().strip_prefix(HEAD).and_then(|head| head.strip_suffix(" ###")) else {
            continue;
        };
        let Some(length) = lines[begin..].iter().position(|line| line.trim() == END) else { continue };
        faulty[begin..=begin + length].fill(true);
        // Without where it was read, which differs each time.
        let fault = line.split_once("] : ").map_or(line, |(_, fault)| fault).trim();
        faults.push(format!("the config snippet from {origin} is left out: {fault}"));
    }
    if faults.is_empty() {
        return None;
    }
    let rest = lines.iter().zip(&faulty).filter(|(_, faulty)| !**faulty);
    Some((rest.map(|(line, _)| format!("{line}\n")).collect(), faults))
}

/// The number of the line that a message is about: `parsing [haproxy.cfg:12] : ...`.
fn number(message: &str) -> Option<usize> {
    message.split('[').find_map(|part| part.split_once(']')?.0.rsplit_once(':')?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "\
backend a
  mode http
  ### service:a/shop/web ###
  http-request deny if FALSE
  ###_config-snippet_### END
  ### ingress:a/shop/odd ###
  option forwardfor
  nonsense
  ###_config-snippet_### END
  server s 127.0.0.1:1
backend b
  nonsense
";

    #[test]
    fn a_snippet_that_is_refused_is_left_out_as_a_whole_and_the_others_stay() {
        let said = "[NOTICE]   (7) : haproxy version is 2.6\n\
                    [ALERT]    (7) : config : parsing [/tmp/x/haproxy.cfg:8] : unknown keyword 'nonsense' in 'backend' section\n\
                    [ALERT]    (7) : config : Fatal errors found in configuration.";
        let (rest, faults) = without_faulty(CONFIGURATION, said).unwrap();
        assert!(
            rest.contains("http-request deny") && rest.contains("server s") && rest.contains("backend b\n  nonsense")
        );
        assert!(!rest.contains("option forwardfor") && !rest.contains("shop/odd"), "{rest}");
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(
            fault.starts_with("the config snippet from ingress:a/shop/odd is left out: unknown keyword"),
            "{fault}"
        );
        assert!(fault.contains("unknown keyword 'nonsense'"), "{fault}");
    }

    #[test]
    fn what_is_wrong_elsewhere_leaves_no_snippet_out() {
        for number in ["1", "2", "10", "12", "13", "99", "0"] {
            assert_eq!(
                without_faulty(CONFIGURATION, &format!("parsing [haproxy.cfg:{number}] : odd")),
                None,
                "{number}"
            );
        }
        assert_eq!(without_faulty(CONFIGURATION, "[ALERT] (7) : nothing of a line"), None);
    }

    #[test]
    fn nothing_in_a_snippet_looks_like_its_edge() {
        let written = "\noption a\n  ###_config-snippet_### END\n\n### ingress:a/b/c ###\n# fine  \n";
        assert_eq!(lines(written).collect::<Vec<_>>(), ["option a", "# fine"]);
    }
}
