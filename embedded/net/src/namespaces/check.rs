//! Whether this machine allows what [`super::enter`] needs.

use std::process::{Command, Stdio};

use super::error::{EnterError, remedy};

/// Tries, in a child process, to make the same namespaces and mounts as [`super::enter`]. The child is util-linux'
/// `unshare`; on a machine without it nothing is tried, and `Ok` says nothing.
///
/// # Errors
/// What was refused, and what to do about it.
pub fn check() -> Result<(), EnterError> {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(EnterError::Check { message, remedy: remedy() })
        }
        Err(error) => {
            tracing::debug!(%error, "there is no `unshare` to try namespaces with");
            Ok(())
        }
    }
}
