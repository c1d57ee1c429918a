//! A tree as a compressed tar with fixed times, owners and modes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use ring::digest::{Context, SHA256};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

use crate::tree::{Entry, Tree};
use crate::{OciError, during};

/// A layer or document that was written to `folder/HEX`.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// A layer that was written.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub blob: Blob,
    /// The SHA-256 of the tar before it was compressed, in hexadecimal.
    pub diff_id: String,
}

impl Blob {
    /// `sha256:HEX`.
    pub fn name(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    /// Writes a document.
    pub fn write(folder: &Path, content: &[u8]) -> Result<Self, OciError> {
        let mut hashing = Hashing::new(io::sink());
        hashing.write_all(content).map_err(during("read", folder))?;
        let (blob, _) = hashing.finish();
        let path = folder.join(&blob.digest);
        std::fs::write(&path, content).map_err(during("write", &path))?;
        Ok(blob)
    }
}

impl Layer {
    /// Writes a layer whose files all have the time `seconds`.
    pub fn write(folder: &Path, tree: &Tree, seconds: u64) -> Result<Self, OciError> {
        let file = NamedTempFile::new_in(folder).map_err(during("create a file in", folder))?;
        let compressed = Hashing::new(BufWriter::new(file));
        // Archives are moved within a machine and unpacked once, so time counts for more than size.
        // The header has neither name nor time, and a fixed system.
        let gzip = GzBuilder::new().write(compressed, Compression::fast());
        let mut tar = Builder::new(Hashing::new(gzip));
        for (path, entry) in &tree.entries {
            append(&mut tar, path, entry, seconds)?;
        }
        let finish = || -> io::Result<_> {
            let (uncompressed, gzip) = tar.into_inner()?.finish();
            let (blob, buffered) = gzip.finish()?.finish();
            Ok((uncompressed.digest, blob, buffered.into_inner().map_err(io::IntoInnerError::into_error)?))
        };
        let (diff_id, blob, file) = finish().map_err(during("write a layer to", folder))?;
        let path = folder.join(&blob.digest);
        file.persist(&path).map_err(|error| during("write", &path)(error.error))?;
        Ok(Self { blob, diff_id })
    }
}

/// The header of an entry: who made it, where and when does not show.
pub(crate) fn header(kind: EntryType, mode: u32, size: u64, seconds: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(seconds);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(tar: &mut Builder<impl Write>, path: &Path, entry: &Entry, seconds: u64) -> Result<(), OciError> {
    let failed = |error| during("write to a layer", Path::new("/").join(path))(error);
    let header = |kind, mode, size| header(kind, mode, size, seconds);
    match entry {
        Entry::Folder { mode } => {
            let mut header = header(EntryType::Directory, *mode, 0);
            // By custom a folder's name ends with a slash.
            let path: PathBuf = path.join("");
            tar.append_data(&mut header, path, io::empty()).map_err(failed)
        }
        Entry::Text(text) => {
            let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes()).map_err(failed)
        }
        Entry::Link(target) => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, path, target).map_err(failed)
        }
        Entry::Host { source, executable } => {
            let file = File::open(source).map_err(during("open", source))?;
            let size = file.metadata().map_err(during("read the size of", source))?.len();
            let mut header = header(EntryType::Regular, if *executable { 0o755 } else { 0o644 }, size);
            let mut content = file.take(size);
            tar.append_data(&mut header, path, &mut content).map_err(failed)?;
            if content.limit() > 0 {
                return Err(during("read", source)(io::Error::other("it became shorter meanwhile; try again")));
            }
            Ok(())
        }
    }
}

/// Passes on what is written, and knows its digest and size.
struct Hashing<W> {
    inner: W,
    context: Context,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    fn finish(self) -> (Blob, W) {
        let digest = self.context.finish();
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (Blob { digest, size: self.size }, self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
