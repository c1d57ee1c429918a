//! The mounts of the new mount namespace.

use nix::mount::{MsFlags, mount};

use super::error::{EnterError, remedy};

/// Detaches the mounts from the machine's, and gives `/proc` and `/run` content of their own. Says whether `/proc` is
/// new; where that is refused (containers that mask parts of it), the old one stays and shows the outer processes.
pub(super) fn prepare() -> Result<bool, EnterError> {
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).map_err(|cause| EnterError::Mount {
        what: "nothing shared",
        target: "/",
        cause: cause.into(),
        remedy: remedy(),
    })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let fresh = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).is_ok();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=0755")).map_err(|cause| EnterError::Mount {
        what: "a tmpfs",
        target: "/run",
        cause: cause.into(),
        remedy: remedy(),
    })?;
    Ok(fresh)
}
