//! The program `nft`, which brings rules into the kernel.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How to run `nft`.
pub(crate) struct Nft {
    pub path: PathBuf,
    pub env: Vec<(String, String)>,
}

/// Why rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program does not run.
    #[error("cannot run {path:?} to set Service rules: {cause}; install nftables, or run `meshgate doctor`")]
    Run {
        /// The program.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The program refused the rules.
    #[error("nft refused Service rules: {message} (the first of {lines} lines was {first:?})")]
    Refused {
        /// What it wrote to stderr.
        message: String,
        /// The first line it was given.
        first: String,
        /// How many lines it was given.
        lines: usize,
    },
}

impl Nft {
    /// Applies a script in the calling thread's network namespace, all or nothing.
    pub(crate) async fn apply(&self, script: &str) -> Result<(), NftError> {
        let failed = |cause| NftError::Run { path: self.path.clone(), cause };
        let mut child = Command::new(&self.path)
            .args(["-f", "-"])
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It reads everything before it writes anything. When it ends early its own message is the better one.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(NftError::Refused {
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            first: script.lines().next().unwrap_or_default().to_owned(),
            lines: script.lines().count(),
        })
    }
}
