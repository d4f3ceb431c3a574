//! One file of the configuration while it is read: its TOML tree, its lines, and what was noticed on the way.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::fault::Fault;
use super::secret::SecretRef;

/// A file or variable that the configuration names, for whoever can look whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where it is named.
    pub file: String,
    /// The line there, from 1.
    pub line: Option<usize>,
    /// The key.
    pub key: String,
    /// What must be there.
    pub need: Need,
}

/// What must be there for the configuration to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A readable file.
    File(PathBuf),
    /// A readable secret.
    Secret(SecretRef),
    /// A readable secret that signs tokens.
    SigningSecret(SecretRef),
    /// A readable secret that holds the keys that seal contexts.
    SealKeys(SecretRef),
    /// A readable PEM file of public keys.
    PublicKeys(PathBuf),
    /// A readable JWKS document.
    KeySet(PathBuf),
    /// The directory of a file that will be written.
    DirectoryOf(PathBuf),
}

/// What was noticed in one file.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) faults: Vec<Fault>,
    pub(super) named: Vec<Named>,
    /// Every key that the reader asked for, `[]` and `*` in place of numbers and names.
    pub(super) keys: BTreeSet<String>,
}

/// One file while it is read.
pub(super) struct Page {
    name: String,
    directory: PathBuf,
    /// Where each line ends, in bytes.
    line_ends: Vec<usize>,
    /// Lines that are not TOML; nothing else is said about them.
    broken_lines: BTreeSet<usize>,
    /// Whether parts of the tree may be missing, so that absence proves nothing.
    torn: bool,
    notes: RefCell<Notes>,
}

impl Page {
    /// Parses `text`, noting every line that is not TOML, and gives the tree of what is.
    pub(super) fn open<'t>(path: &Path, text: &'t str) -> (Self, DeTable<'t>) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut page = Self {
            name: path.display().to_string(),
            directory: path.parent().map(Path::to_path_buf).unwrap_or_default(),
            line_ends: text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect(),
            broken_lines: BTreeSet::new(),
            torn: false,
            notes: RefCell::default(),
        };
        for error in errors {
            page.not_toml(&error);
        }
        (page, tree.into_inner())
    }

    fn not_toml(&mut self, error: &toml::de::Error) {
        let line = self.line_of(error.span().map_or(0, |span| span.start));
        let duplicate = error.message().starts_with("duplicate key");
        self.torn |= !duplicate;
        if self.broken_lines.insert(line) {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let message = if duplicate { "this key is given twice".to_owned() } else { format!("not TOML: {message}") };
            let fault = Fault { file: self.name.clone(), line: Some(line), key: String::new(), message };
            self.notes.get_mut().faults.push(fault);
        }
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    /// Whether parts of the tree may be missing because the file is not TOML throughout.
    pub(super) fn torn(&self) -> bool {
        self.torn
    }

    /// A path as the file means it: relative to the file's own directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Notes a fault, unless its line is already known not to be TOML.
    pub(super) fn fault(&self, line: Option<usize>, key: String, message: String) {
        if line.is_some_and(|line| self.broken_lines.contains(&line)) {
            return;
        }
        self.notes.borrow_mut().faults.push(Fault { file: self.name.clone(), line, key, message });
    }

    /// Notes that something outside is needed.
    pub(super) fn need(&self, line: Option<usize>, key: String, need: Need) {
        self.notes.borrow_mut().named.push(Named { file: self.name.clone(), line, key, need });
    }

    /// Notes that a key is known.
    pub(super) fn known(&self, shape: String) {
        self.notes.borrow_mut().keys.insert(shape);
    }

    /// Everything noticed, faults in the order of their lines.
    pub(super) fn close(self) -> Notes {
        let mut notes = self.notes.into_inner();
        notes.faults.sort_by_key(|fault| fault.line);
        notes
    }
}
