//! The variables `MESHGATE_*_BIN`, each of which puts a program of the user's in a place. One with a slip in its name would be passed over, and
//! another program judged in silence.

use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::bail;
use meshgate_fixtures::nearest;
use meshgate_images::Catalogue;

/// Refuses those of this process that are no program's.
///
/// # Errors
/// The first such variable, and what may be meant by it.
pub fn check(catalogue: &Catalogue) -> anyhow::Result<()> {
    // As everywhere, one that is empty is not there.
    let given = std::env::vars_os().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    known(given, &catalogue.variables())
}

fn known(given: impl Iterator<Item = OsString>, known: &BTreeSet<&str>) -> anyhow::Result<()> {
    for name in given.filter_map(|name| name.into_string().ok()) {
        let Some(program) = program(&name).filter(|_| !known.contains(name.as_str())) else { continue };
        // What all have in common would make each look like the others.
        let near = nearest(program, known.iter().filter_map(|name| self::program(name)));
        let meant = near.map_or_else(String::new, |near| format!("; did you mean \"MESHGATE_{near}_BIN\"?"));
        let all = known.iter().copied().collect::<Vec<_>>().join(", ");
        bail!("{name}: no program has this variable{meant} (known: {all}); unset it, or give it the name of one");
    }
    Ok(())
}

/// `X` of `MESHGATE_X_BIN`.
fn program(name: &str) -> Option<&str> {
    name.strip_prefix("MESHGATE_")?.strip_suffix("_BIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_name_of_a_programs_variable_is_told_and_no_other_is_looked_at() {
        let catalogue = Catalogue::built_in("/bin/meshgate");
        let refused =
            |name: &str| known(std::iter::once(name.into()), &catalogue.variables()).map_err(|error| error.to_string());
        for other in ["MESHGATE_LOG", "MESHGATE_CACHE", "MESHGATE_PYTHON", "MESHGATE_BIN", "TREAFIK_BIN", "PATH"] {
            assert_eq!(refused(other), Ok(()), "{other}");
        }
        for own in ["MESHGATE_TRAEFIK_BIN", "MESHGATE_TRAEFIK_1X_BIN", "MESHGATE_NFT_BIN", "MESHGATE_KUBECTL_BIN"] {
            assert_eq!(refused(own), Ok(()), "{own}");
        }
        let slip = refused("MESHGATE_TREAFIK_BIN").unwrap_err();
        let meant =
            "MESHGATE_TREAFIK_BIN: no program has this variable; did you mean \"MESHGATE_TRAEFIK_BIN\"? (known: ";
        assert!(slip.starts_with(meant), "{slip}");
        let none = refused("MESHGATE_HELM_BIN").unwrap_err();
        assert!(none.starts_with("MESHGATE_HELM_BIN: no program has this variable (known: "), "{none}");
    }
}
