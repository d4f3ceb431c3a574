//! What is wrong with a configuration, one line each.

use std::fmt;

/// One fault: where, which key, what is wrong and what is allowed. Never carries a secret's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as the operator named it.
    pub file: String,
    /// The line in it, from 1; `None` where something is missing from the whole file.
    pub line: Option<usize>,
    /// The key, dotted from the top (`shards[1].port`); empty where a line is not TOML at all.
    pub key: String,
    /// What is wrong (what is allowed).
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All faults of a configuration, in the order of the files and their lines; displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
