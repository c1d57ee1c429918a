//! The folder that a run's report goes to.

use std::path::Path;

use anyhow::Context as _;

/// Makes it, and tries whether anything can be written there: after the run it would be too late.
pub fn tried(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the report folder {}", dir.display()))?;
    let file = tempfile::NamedTempFile::new_in(dir);
    file.map(drop).with_context(|| {
        format!("cannot write to the report folder {}; give one that can be written with --report-dir", dir.display())
    })
}
