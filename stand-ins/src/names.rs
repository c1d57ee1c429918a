//! Names that a configuration has as they are. An API server lets no others into an Ingress; this is for one that is less strict, and for
//! objects of before it was strict.

/// A host of a rule: a DNS name in lower case, whose first label may be `*`.
pub(crate) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let plain = label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253 && host.strip_prefix("*.").unwrap_or(host).split('.').all(label)
}

/// A Service's name, or its port as an Ingress names it.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// A name that a header may have.
pub(crate) fn is_header(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_a_word_of_a_configuration_is_a_name() {
        for host in ["shop.test", "*.shop.test", "a", "1.x-y.z"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "*", "a..b", "-a.test", "a.test;", "a b", "a{b", "a\nb", "$a", "A.test", "a.*.test", "\"a\""] {
            assert!(!is_host(host), "{host}");
        }
        assert!(is_plain("web-1") && is_plain("8080"));
        for name in ["", "a b", "a;", "a.b", "$a", "a\"", "a\n"] {
            assert!(!is_plain(name) && !is_header(name), "{name}");
        }
        assert!(is_header("l5d-dst_override"));
    }
}
