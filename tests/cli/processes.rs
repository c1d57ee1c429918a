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
        self.processes().into_iter().map(|process| process.command.chars().take(100).collect()).collect()
    }

    /// The same with all that is known of them.
    pub fn processes(&mut self) -> Vec<Process> {
        let own = namespace("self");
        let all = processes();
        for process in &all {
            if process.command.contains(&self.marker) && process.namespace != own {
                self.namespaces.extend(process.namespace.clone());
            }
        }
        let belongs = |namespace: &Option<PathBuf>| namespace.as_ref().is_some_and(|it| self.namespaces.contains(it));
        all.into_iter()
            .filter(|process| process.command.contains(&self.marker) || belongs(&process.namespace))
            .collect()
    }
}

/// A process that has not ended.
pub struct Process {
    pub id: i32,
    pub parent: i32,
    pub command: String,
    /// Its PID namespace.
    namespace: Option<PathBuf>,
}

fn namespace(process: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

/// Every process that has not ended.
fn processes() -> Vec<Process> {
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
    });
    numbers
        .filter_map(|number| {
            // Empty for kernel threads and for those that ended and were not waited for.
            let command = std::fs::read(format!("/proc/{number}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            // `PID (NAME) STATE PARENT ...`, and a name may have brackets.
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some(Process { id: number.parse().ok()?, parent, command, namespace: namespace(&number) })
        })
        .collect()
}
