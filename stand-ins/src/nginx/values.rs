//! What annotations take: the rules are those of `internal/ingress/annotations`, which look at a value's characters, and where these would
//! let something pass that nginx refuses, a little narrower.

/// A rule and how it is told.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) expected: &'static str,
    takes: fn(&str) -> bool,
}

impl Rule {
    pub(crate) fn takes(self, value: &str) -> bool {
        (self.takes)(value)
    }
}

/// A boolean, as Go reads it.
pub(crate) const FLAG: Rule = Rule { expected: "true or false", takes: |value| flag(value).is_some() };

/// Seconds and weights.
pub(crate) const NUMBER: Rule = Rule { expected: "a number", takes: |value| value.parse::<u32>().is_ok() };

/// `8m`.
pub(crate) const SIZE: Rule = Rule { expected: "a size such as 8m", takes: is_size };

/// `on` and `off`.
pub(crate) const SWITCH: Rule = Rule { expected: "on or off", takes: |value| ["on", "off"].contains(&value.trim()) };

/// `backend-protocol`.
pub(crate) const PROTOCOL: Rule = Rule {
    expected: "HTTP, HTTPS, GRPC or GRPCS",
    takes: |value| ["HTTP", "HTTPS", "GRPC", "GRPCS", "AUTO_HTTP", "FCGI"].contains(&value.to_uppercase().as_str()),
};

/// Names of headers and cookies, and `NAMESPACE/NAME`.
pub(crate) const BASIC: Rule =
    Rule { expected: "letters, digits and -._~/:", takes: |value| value.chars().all(is_basic) };

/// A URL, with variables.
pub(crate) const URL: Rule = Rule {
    expected: "a URL of letters, digits and -._~/:?&=$",
    takes: |value| value.chars().all(|c| is_basic(c) || "?&=$".contains(c)),
};

/// A host, or a pattern of one.
pub(crate) const SERVER_NAME: Rule =
    Rule { expected: "a host", takes: |value| value.trim().chars().all(is_of_pattern) };

/// `canary-by-header-pattern`.
pub(crate) const PATTERN: Rule = Rule {
    expected: "a regular expression of letters, digits and -._~/:^$[](){}*+?|&=\\",
    takes: |value| value.chars().all(is_of_pattern),
};

/// A path with captures.
pub(crate) const REWRITE: Rule = Rule {
    expected: "a path, which may have captures such as $1",
    takes: |value| value.chars().all(|c| is_basic(c) || c == '$'),
};

/// `custom-http-errors`. 499 is nginx' own.
pub(crate) const CODES: Rule = Rule {
    expected: "codes between 400 and 599",
    takes: |value| {
        let is_code = |code: &str| code.parse().is_ok_and(|code: u16| (400..600).contains(&code) && code != 499);
        value.split(',').map(str::trim).filter(|code| !code.is_empty()).all(is_code)
    },
};

/// `auth-response-headers`.
pub(crate) const HEADERS: Rule = Rule {
    expected: "names of headers, with commas between them",
    takes: |value| value.chars().all(|c| c.is_ascii_alphanumeric() || "-_, ".contains(c)),
};

/// `auth-type`.
pub(crate) const AUTH_TYPE: Rule =
    Rule { expected: "basic or digest", takes: |value| ["basic", "digest"].contains(&value) };

/// `auth-secret-type`.
pub(crate) const AUTH_SECRET_TYPE: Rule =
    Rule { expected: "auth-file or auth-map", takes: |value| ["auth-file", "auth-map"].contains(&value) };

/// `auth-realm`.
pub(crate) const REALM: Rule = Rule {
    expected: "letters, digits, blanks and -._~/:",
    takes: |value| value.chars().all(|c| is_basic(c) || c == ' '),
};

/// A Service's name.
pub(crate) const SERVICE: Rule = Rule { expected: "the name of a Service", takes: crate::names::is_plain };

fn is_basic(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~/:".contains(c)
}

fn is_of_pattern(c: char) -> bool {
    is_basic(c) || "^$[](){}*+?|&=\\".contains(c)
}

/// The real rule takes blanks and the unit b as well; nginx takes neither, nor what does not fit into 63 bits.
fn is_size(value: &str) -> bool {
    let digits = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    value.len() - digits.len() <= 1
        && digits.chars().all(|c| c.is_ascii_digit())
        && digits.parse::<i64>().is_ok_and(|number| number.checked_mul(1 << 30).is_some())
}

pub(crate) fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `404,503`.
pub(crate) fn codes(list: &str) -> Vec<u16> {
    list.split(',').filter_map(|code| code.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_that_ends_a_directive() {
        for rule in [
            FLAG,
            NUMBER,
            SIZE,
            SWITCH,
            PROTOCOL,
            BASIC,
            URL,
            REWRITE,
            CODES,
            HEADERS,
            AUTH_TYPE,
            AUTH_SECRET_TYPE,
            REALM,
            SERVICE,
            SERVER_NAME,
            PATTERN,
        ] {
            for value in ["a;b", "a\"b", "a'b", "a\nb", "a#b", "; }", "\u{e9}"] {
                assert!(!rule.takes(value), "{}: {value:?}", rule.expected);
            }
        }
    }

    #[test]
    fn what_is_meant_passes() {
        for (rule, values) in [
            (SIZE, &["0", "8m", "1024K", "10G"][..]),
            (BASIC, &["x-canary", "shop/headers", "a_b.c~d:e"]),
            (URL, &["http://auth.shop.svc.cluster.local:80/check?a=b&c=$request_uri"]),
            (REWRITE, &["/$1/b", "/"]),
            (SERVER_NAME, &["web.shop.svc.cluster.local", "$service_name.test"]),
            (CODES, &["404", "404, 503", "404,"]),
            (HEADERS, &["X-User, X_Group"]),
            (FLAG, &["true", "0"]),
            (PATTERN, &["^[a-z]+$", "(a|b)\\d{2}"]),
            (REALM, &["Who are you - the shop", ""]),
        ] {
            for value in values {
                assert!(rule.takes(value), "{}: {value}", rule.expected);
            }
        }
        for size in ["", "1mm", "10b", "1 m", "m", "-1", "8 mb", "99999999999999999999"] {
            assert!(!SIZE.takes(size), "{size}");
        }
        for code in ["399", "499", "600", "x"] {
            assert!(!CODES.takes(code), "{code}");
        }
    }
}
