//! The audit file: appends whole lines through a bounded buffer, and follows the file when it is renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The buffer is written from this size on, in bytes.
const BUFFER_LARGE: usize = 64 * 1024;
/// While the file cannot be written, this much is kept, in bytes.
const BUFFER_MAX: usize = 1024 * 1024;

/// The file and what is to be written to it.
#[derive(Debug)]
pub struct Trail {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    pending: u64,
    /// Lines written since somebody asked.
    written: u64,
    is_failing: bool,
}

impl Trail {
    /// Opens the file for appending; makes it if need be, for its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (path, file) = (path.to_owned(), open(path)?);
        Ok(Self { path, file, buffer: Vec::new(), pending: 0, written: 0, is_failing: false })
    }

    /// Takes a line, without its end; false when there is no room for it.
    pub fn append(&mut self, line: &str) -> bool {
        if self.buffer.len() + line.len() >= BUFFER_MAX {
            return false;
        }
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.pending += 1;
        true
    }

    /// Whether it is time to write.
    pub fn is_large(&self) -> bool {
        self.buffer.len() >= BUFFER_LARGE && !self.is_failing
    }

    /// Hands all lines to the kernel. After an error the rest is kept, from the byte where it failed.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        let result = loop {
            if done == self.buffer.len() {
                break Ok(());
            }
            match self.file.write(&self.buffer[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.buffer.drain(..done);
        if self.buffer.is_empty() {
            self.written += std::mem::take(&mut self.pending);
            self.buffer.shrink_to(BUFFER_LARGE);
        }
        result
    }

    /// How many lines were written since the last call.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Whether the path names another file than the open one, or none.
    pub fn has_moved(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity).ok();
        named.is_none() || named != self.file.metadata().map(identity).ok()
    }

    /// Opens the path anew; after an error the old file is kept.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Notes whether writing fails; true when that is news.
    pub fn set_failing(&mut self, is_failing: bool) -> bool {
        std::mem::replace(&mut self.is_failing, is_failing) != is_failing
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
