//! Volumes: a directory per volume under the pod's state, filled from the API and bound into containers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};
use meshgate_store::{GroupResource, Store};
use serde_json::Value;

use crate::env::{EnvError, Sources, Variables, resource_value};
use crate::kinds;
use crate::launch::Bind;

/// The ConfigMap that holds the cluster's CA; made up from the node's configuration when it does not exist.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Mode of files whose volume says nothing.
const DEFAULT_MODE: i32 = 0o644;
/// Lifetime of a token whose volume says nothing, in seconds.
const TOKEN_LIFETIME: i64 = 3600;

/// What a projected `serviceAccountToken` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Namespace of the pod and the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// The audience; `None` for the API server.
    pub audience: Option<String>,
    /// Lifetime in seconds.
    pub expiration_seconds: i64,
}

/// Issues service account tokens.
pub type TokenSource = Arc<dyn Fn(&TokenRequest) -> String + Send + Sync>;

/// Why a volume is not ready. Except for the last two, waiting may help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The ConfigMap or Secret is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    /// It is there without the key.
    #[error("references non-existent {kind} key: {key}")]
    MissingKey { kind: &'static str, key: String },
    /// A downward API item that cannot be had.
    #[error(transparent)]
    Field(#[from] EnvError),
    /// `hostPath` of a type that is not there.
    #[error("hostPath type check failed: {path:?} is not a {wanted}")]
    HostPath { path: PathBuf, wanted: String },
    /// A kind of volume this node does not have.
    #[error(
        "volume {0:?} is of a kind that the embedded node does not have; use emptyDir, configMap, secret, projected, downwardAPI or hostPath"
    )]
    Unsupported(String),
    /// The state directory refused.
    #[error("cannot write {path:?}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
}

type Result<T> = std::result::Result<T, VolumeError>;

/// Files of a volume: relative path, content, mode.
type Files = BTreeMap<String, (Vec<u8>, i32)>;

/// The volumes of one pod.
pub(crate) struct Volumes {
    /// One directory per volume in here.
    pub dir: PathBuf,
    /// ConfigMaps and Secrets.
    pub store: Store,
    /// Tokens.
    pub tokens: TokenSource,
    /// The API server's CA.
    pub ca_pem: String,
}

impl Volumes {
    /// Brings every volume's directory in line with the API. Files change one by one, each atomically.
    ///
    /// # Errors
    /// The first volume that is not ready, with its name.
    pub(crate) fn sync(&self, sources: &Sources<'_>) -> std::result::Result<(), (String, VolumeError)> {
        for volume in sources.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            self.sync_one(volume, sources).map_err(|error| (volume.name.clone(), error))?;
        }
        Ok(())
    }

    fn sync_one(&self, volume: &Volume, sources: &Sources<'_>) -> Result<()> {
        let dir = self.dir.join(&volume.name);
        let mut files = Files::new();
        if volume.empty_dir.is_some() {
            fs::create_dir_all(&dir).map_err(io_error(&dir))?;
            return fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(io_error(&dir));
        } else if let Some(host) = &volume.host_path {
            return host_path(Path::new(&host.path), host.type_.as_deref().unwrap_or_default());
        } else if let Some(source) = &volume.config_map {
            let (items, optional) = (source.items.as_deref(), source.optional);
            self.object(&mut files, "configmap", &source.name, items, optional, source.default_mode, sources)?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let (items, optional) = (source.items.as_deref(), source.optional);
            self.object(&mut files, "secret", name, items, optional, source.default_mode, sources)?;
        } else if let Some(source) = &volume.downward_api {
            downward(&mut files, source.items.as_deref(), source.default_mode, sources)?;
        } else if let Some(source) = &volume.projected {
            for projection in source.sources.iter().flatten() {
                self.projection(&mut files, projection, source.default_mode, &dir, sources)?;
            }
        } else {
            return Err(VolumeError::Unsupported(volume.name.clone()));
        }
        write(&dir, &files)
    }

    fn projection(
        &self,
        files: &mut Files,
        projection: &VolumeProjection,
        mode: Option<i32>,
        dir: &Path,
        sources: &Sources<'_>,
    ) -> Result<()> {
        if let Some(source) = &projection.config_map {
            self.object(files, "configmap", &source.name, source.items.as_deref(), source.optional, mode, sources)?;
        }
        if let Some(source) = &projection.secret {
            self.object(files, "secret", &source.name, source.items.as_deref(), source.optional, mode, sources)?;
        }
        if let Some(source) = &projection.downward_api {
            downward(files, source.items.as_deref(), mode, sources)?;
        }
        if let Some(source) = &projection.service_account_token {
            // A token once given is kept: another sync must not look like a rotation.
            let token = fs::read(dir.join(&source.path)).unwrap_or_else(|_| {
                let metadata = &sources.pod.metadata;
                let account = sources.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
                let request = TokenRequest {
                    namespace: metadata.namespace.clone().unwrap_or_default(),
                    service_account: account.unwrap_or_else(|| "default".into()),
                    pod: metadata.name.clone().unwrap_or_default(),
                    pod_uid: metadata.uid.clone().unwrap_or_default(),
                    audience: source.audience.clone(),
                    expiration_seconds: source.expiration_seconds.unwrap_or(TOKEN_LIFETIME),
                };
                (self.tokens)(&request).into_bytes()
            });
            files.insert(source.path.clone(), (token, mode.unwrap_or(DEFAULT_MODE)));
        }
        Ok(())
    }

    /// The files of a ConfigMap or Secret.
    #[expect(clippy::too_many_arguments, reason = "the fields of four volume sources that share no type")]
    fn object(
        &self,
        files: &mut Files,
        kind: &'static str,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
        sources: &Sources<'_>,
    ) -> Result<()> {
        let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
        let resource: GroupResource = if kind == "secret" { kinds::secrets() } else { kinds::config_maps() };
        let mut data = match self.store.get(&resource, namespace, name) {
            Ok(object) => data(&object, kind),
            Err(_) if kind == "configmap" && name == ROOT_CA => {
                BTreeMap::from([("ca.crt".to_owned(), self.ca_pem.clone().into_bytes())])
            }
            Err(_) if optional == Some(true) => return Ok(()),
            Err(_) => return Err(VolumeError::Missing { kind, name: name.to_owned() }),
        };
        let mode = mode.unwrap_or(DEFAULT_MODE);
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            files.extend(data.into_iter().map(|(key, content)| (key, (content, mode))));
            return Ok(());
        };
        for item in items {
            match data.remove(&item.key) {
                Some(content) => {
                    files.insert(item.path.clone(), (content, item.mode.unwrap_or(mode)));
                }
                None if optional == Some(true) => {}
                None => return Err(VolumeError::MissingKey { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }

    /// The mounts of a container.
    pub(crate) fn binds(&self, pod: &Pod, container: &Container, variables: &Variables) -> Result<Vec<Bind>> {
        let mut binds = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let Some(volume) = volumes.into_iter().find(|volume| volume.name == mount.name) else {
                return Err(VolumeError::Missing { kind: "volume", name: mount.name.clone() });
            };
            let mut source = match &volume.host_path {
                Some(host) => PathBuf::from(&host.path),
                None => self.dir.join(&volume.name),
            };
            let sub_path = mount.sub_path_expr.as_ref().map(|expr| variables.expand(expr)).or(mount.sub_path.clone());
            if let Some(sub_path) =
                sub_path.filter(|path| !path.is_empty() && !path.split('/').any(|part| part == ".."))
            {
                source.push(sub_path.trim_start_matches('/'));
                if !source.exists() {
                    fs::create_dir_all(&source).map_err(io_error(&source))?;
                }
            }
            let from_api = volume.empty_dir.is_none() && volume.host_path.is_none();
            binds.push(Bind {
                source,
                target: PathBuf::from(&mount.mount_path),
                read_only: from_api || mount.read_only == Some(true),
            });
        }
        // A mount inside another one has to come after it.
        binds.sort_by_key(|bind| bind.target.components().count());
        Ok(binds)
    }
}

/// The ConfigMaps and Secrets that a pod's volumes are made from, as `(kind, name)` with lower-case kinds.
pub(crate) fn references(pod: &Pod) -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        found.extend(volume.config_map.iter().map(|source| ("configmap", source.name.clone())));
        found.extend(volume.secret.iter().filter_map(|source| Some(("secret", source.secret_name.clone()?))));
        for projection in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            found.extend(projection.config_map.iter().map(|source| ("configmap", source.name.clone())));
            found.extend(projection.secret.iter().map(|source| ("secret", source.name.clone())));
        }
    }
    found
}

fn downward(
    files: &mut Files,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
    sources: &Sources<'_>,
) -> Result<()> {
    for item in items.into_iter().flatten() {
        let content = if let Some(field) = &item.field_ref {
            sources.field(field)?
        } else if let Some(field) = &item.resource_field_ref {
            let containers = sources.pod.spec.iter().flat_map(|spec| &spec.containers);
            let named = containers.into_iter().find(|container| Some(&container.name) == field.container_name.as_ref());
            resource_value(field, named.unwrap_or(&Container::default()))?
        } else {
            continue;
        };
        files.insert(item.path.clone(), (content.into_bytes(), item.mode.or(mode).unwrap_or(DEFAULT_MODE)));
    }
    Ok(())
}

/// `data` and `binaryData` as bytes.
fn data(object: &Value, kind: &str) -> BTreeMap<String, Vec<u8>> {
    let field = |name: &str, encoded: bool| {
        let entries = object[name].as_object().into_iter().flatten();
        entries
            .filter_map(|(key, value)| {
                let text = value.as_str()?;
                let bytes = if encoded { STANDARD.decode(text).ok()? } else { text.as_bytes().to_vec() };
                Some((key.clone(), bytes))
            })
            .collect::<Vec<_>>()
    };
    field("data", kind == "secret").into_iter().chain(field("binaryData", true)).collect()
}

/// Checks or creates a `hostPath` by its type.
fn host_path(path: &Path, kind: &str) -> Result<()> {
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(path).map_err(io_error(path)),
        "FileOrCreate" if !path.exists() => fs::write(path, "").map_err(io_error(path)),
        "Directory" if !path.is_dir() => {
            Err(VolumeError::HostPath { path: path.to_owned(), wanted: "directory".into() })
        }
        "File" if !path.is_file() => Err(VolumeError::HostPath { path: path.to_owned(), wanted: "file".into() }),
        // As container runtimes do with a source that is not there.
        "" if !path.exists() => fs::create_dir_all(path).map_err(io_error(path)),
        _ => Ok(()),
    }
}

/// Makes `dir` hold exactly `files`.
fn write(dir: &Path, files: &Files) -> Result<()> {
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    for (name, (content, mode)) in files {
        let path = dir.join(name);
        if !path.starts_with(dir) || name.split('/').any(|part| part == "..") {
            continue;
        }
        if fs::read(&path).is_ok_and(|present| present == *content) {
            continue;
        }
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(io_error(parent))?;
        let fresh = parent.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        fs::write(&fresh, content).map_err(io_error(&fresh))?;
        let mode = u32::try_from(*mode).unwrap_or(0o644);
        fs::set_permissions(&fresh, Permissions::from_mode(mode)).map_err(io_error(&fresh))?;
        fs::rename(&fresh, &path).map_err(io_error(&path))?;
    }
    remove_others(dir, dir, files)
}

fn remove_others(dir: &Path, root: &Path, files: &Files) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io_error(dir))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(&path, root, files)?;
        } else if path.strip_prefix(root).is_ok_and(|name| !files.contains_key(name.to_string_lossy().as_ref())) {
            fs::remove_file(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |cause| VolumeError::Io { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(name, text)| ((*name).to_owned(), (text.as_bytes().to_vec(), DEFAULT_MODE))).collect()
    }

    #[test]
    fn a_directory_follows_its_source() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        write(dir.path(), &files(&[("a", "3")])).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("sub/b").exists());
    }

    #[test]
    fn a_file_cannot_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        write(&volume, &files(&[("../outside", "1"), ("inside", "2")])).unwrap();
        assert!(volume.join("inside").exists());
        assert!(!dir.path().join("outside").exists());
    }
}
