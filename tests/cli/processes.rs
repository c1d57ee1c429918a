//! Which processes belong to a run or a cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The processes of a run, found by a text in the command line of its own processes, such as the path of the report folder.
pub struct Family {
    marker: String,
    /// PID namespaces that they made.
    namespaces: BTreeSet<PathBuf>,
}

impl Family {
    pub fn marked(marker: &Path) -> Self {
        Self { marker: marker.display().to_string(), namespaces: BTreeSet::new() }
    }

    /// The command lines of those that carry the mark, and of all in the PID namespaces that such a process was ever seen in.
    pub fn members(&mut self) -> Vec<String> {
        let own = namespace("self");
        let all: Vec<(Option<PathBuf>, String)> = processes();
        for (namespace, command) in &all {
            if command.contains(&self.marker) && *namespace != own {
                self.namespaces.extend(namespace.clone());
            }
        }
        let belongs = |namespace: &Option<PathBuf>| namespace.as_ref().is_some_and(|it| self.namespaces.contains(it));
        all.into_iter()
            .filter(|(namespace, command)| command.contains(&self.marker) || belongs(namespace))
            .map(|(_, command)| command.chars().take(100).collect())
            .collect()
    }
}

fn namespace(process: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

/// PID namespace and command line of every process that has not ended.
fn processes() -> Vec<(Option<PathBuf>, String)> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
    });
    numbers
        .filter_map(|number| {
            // Empty for kernel threads and for those that ended and were not waited for.
            let command = std::fs::read(format!("/proc/{number}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
            Some((namespace(&number), String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
}
