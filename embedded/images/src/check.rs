//! What is missing on this machine, for `meshgate doctor`.

use crate::Catalogue;
use crate::debian::on_path;

/// One thing that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: String,
    /// Where it is, or what is wrong.
    pub found: Result<String, String>,
    /// What it is needed for, as the end of a sentence that begins with `what`.
    pub why: &'static str,
    /// The command that mends it.
    pub remedy: String,
}

impl Catalogue {
    /// Everything that fetching and running programs needs on this machine. Fetches nothing, and makes nothing but an empty cache.
    pub fn check(&self, images: &[String]) -> Vec<Check> {
        let mut checks = Vec::new();
        let program = |name: &str, why, remedy: &str| Check {
            what: name.to_owned(),
            found: on_path(name).map(|path| path.display().to_string()).ok_or_else(|| "not on PATH".to_owned()),
            why,
            remedy: remedy.to_owned(),
        };
        let python = self.python.display().to_string();
        checks.push(program(&python, "is what fetches programs from PyPI", "sudo apt-get install python3 python3-pip"));
        // As a path, a bare name would mean a file in the current folder.
        let pip = duct::cmd!(self.python.as_os_str(), "-m", "pip", "--version").stderr_capture().unchecked().read();
        checks.push(Check {
            what: "pip".to_owned(),
            found: match pip {
                Ok(version) if !version.is_empty() => Ok(version),
                _ => Err(format!("{python} -m pip does not run")),
            },
            why: "is what fetches programs from PyPI",
            remedy: "sudo apt-get install python3-pip".to_owned(),
        });
        let cache = &self.cache;
        for nft in self.packaged().filter(|packaged| packaged.program == "nft") {
            checks.push(Check {
                what: nft.program.to_owned(),
                found: nft.whereabouts(cache),
                why: "makes Services, load balancers and the redirection to proxies",
                remedy: "sudo apt-get install nftables".to_owned(),
            });
        }
        for image in images {
            checks.push(Check {
                what: image.clone(),
                found: match self.resolve(image) {
                    Ok(program) => Ok(self.whereabouts(image, &program)),
                    Err(crate::ImageError::Missing { package, version, .. }) => {
                        Ok(format!("not cached; {package} {version} will be fetched from PyPI"))
                    }
                    Err(crate::ImageError::Unpacked { package, .. }) if on_path("apt-get").is_some() => {
                        Ok(format!("not installed; {package} will be unpacked from Debian's packages"))
                    }
                    Err(error) => Err(error.to_string()),
                }
                .map(|found| found + &self.replaceable(image)),
                why: "belongs to a controller under test",
                remedy: "see the message".to_owned(),
            });
        }
        checks.push(Check {
            what: "cache".to_owned(),
            found: match std::fs::create_dir_all(cache).and_then(|()| tempfile::tempfile_in(cache)) {
                Ok(_) => Ok(cache.display().to_string()),
                Err(error) => Err(format!("{}: {error}", cache.display())),
            },
            why: "is where fetched programs are kept",
            remedy: "export MESHGATE_CACHE=FOLDER".to_owned(),
        });
        checks
    }
}
