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
    /// Bytes of the first of them that this file has already, from a write that failed in the middle of it.
    torn: usize,
    /// Lines written since somebody asked.
    written: u64,
    is_failing: bool,
}

impl Trail {
    /// Opens the file for appending; makes it if need be, for its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (path, file) = (path.to_owned(), open(path)?);
        Ok(Self { path, file, buffer: Vec::new(), pending: 0, torn: 0, written: 0, is_failing: false })
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

    /// Hands all lines to the kernel. After an error the rest is kept, and goes on at the byte where it failed, or in
    /// another file with the whole line.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut done = self.torn;
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
        // The beginning of a line that was cut is kept: another file must have all of it.
        let whole = self.buffer[..done].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = self.buffer[..whole].iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.torn = done - whole;
        self.pending -= lines;
        self.written += lines;
        self.buffer.drain(..whole);
        if self.buffer.is_empty() {
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
        self.torn = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_goes_on_where_it_was_or_whole_into_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
        let mut trail = Trail::open(&path).expect("it opens");
        for goes_on in [true, false] {
            fs::write(&path, "{\"a").expect("what a failed write has left");
            assert!(trail.append("{\"a\":1}"));
            trail.torn = 3;
            if !goes_on {
                fs::rename(&path, &old).expect("it can be renamed");
                assert!(trail.has_moved());
                trail.reopen().expect("it opens anew");
            }
            trail.flush().expect("it is written");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "{\"a\":1}\n");
            assert_eq!((trail.take_written(), trail.pending), (1, 0));
            trail.file.set_len(0).expect("it can be emptied");
        }
    }
}
