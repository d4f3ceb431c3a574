//! What the guard gathers while it walks one text, before it becomes a verdict.

use std::ops::Range;

use super::rewrite::Edit;
use super::verdict::{Change, Cursors, Statement, Taints, Verdict};
use crate::event::StatementClass;

/// At most so many relations are named in a verdict; rights are checked on every one.
pub const RELATIONS_MAX: usize = 64;

/// Everything found so far in a text.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub reads: Vec<Box<str>>,
    pub writes: Vec<Box<str>>,
    pub statements: Vec<Statement>,
    /// Changes of the statement that is being judged.
    pub changes: Vec<Change>,
    pub taints: Taints,
    pub grows_data: bool,
    pub reads_sequence_state: bool,
    pub cursors: Cursors,
    /// What cannot be sent as it stands.
    pub edits: Vec<Edit>,
    /// The statement that is being judged writes rows.
    pub wrote: bool,
    /// A view of statistics is read where tables are shared.
    pub reads_counters: bool,
    /// The statement that is being judged makes a table (SELECT … INTO).
    pub defined: bool,
    /// The values of constants may have had a say.
    pub weighed_values: bool,
}

impl Facts {
    /// Remembers a relation that is read.
    pub fn read(&mut self, schema: Option<&str>, name: &str) {
        note(&mut self.reads, schema, name);
    }

    /// Remembers a relation that is written.
    pub fn write(&mut self, schema: Option<&str>, name: &str) {
        self.wrote = true;
        note(&mut self.writes, schema, name);
    }

    /// Remembers what may be left behind on the connection.
    pub fn taint(&mut self, taint: Taints) {
        self.taints = self.taints | taint;
    }

    /// Closes the statement that is being judged.
    pub fn statement(&mut self, class: StatementClass, range: Range<usize>) {
        let changes = std::mem::take(&mut self.changes).into_boxed_slice();
        self.statements.push(Statement { class, range, changes });
        self.wrote = false;
        self.defined = false;
    }

    /// The class of what was walked, where the statement is one that reads or writes rows.
    pub fn class(&self) -> StatementClass {
        match (self.defined, self.wrote) {
            (true, _) => StatementClass::Ddl,
            (false, true) => StatementClass::Write,
            (false, false) => StatementClass::Read,
        }
    }

    /// Whether the verdict is that on every text that differs from this one in nothing but the values of its constants.
    ///
    /// Where something changes in the session, the verdict says what, in the text's own values and places.
    pub fn is_shareable(&self) -> bool {
        match self.statements.as_slice() {
            [only] => !self.weighed_values && only.changes.is_empty() && self.edits.is_empty(),
            _ => false,
        }
    }

    /// The verdict on the whole text; `text` is what stands in for it, if anything does.
    pub fn into_verdict(self, text: Option<Box<str>>) -> Verdict {
        let heaviest = self.statements.iter().map(Statement::class).max_by_key(|class| weight(*class));
        Verdict {
            text,
            class: heaviest.unwrap_or(StatementClass::Utility),
            statements: self.statements.into(),
            reads: self.reads.into(),
            writes: self.writes.into(),
            taints: self.taints,
            grows_data: self.grows_data,
            reads_sequence_state: self.reads_sequence_state,
            cursors: self.cursors,
        }
    }
}

/// Which class names a text of several statements.
const fn weight(class: StatementClass) -> u8 {
    match class {
        StatementClass::Ddl => 6,
        StatementClass::Write => 5,
        StatementClass::Copy => 4,
        StatementClass::Read => 3,
        StatementClass::Utility => 2,
        StatementClass::Session => 1,
        StatementClass::Transaction => 0,
    }
}

fn note(list: &mut Vec<Box<str>>, schema: Option<&str>, name: &str) {
    let same = |known: &str| match schema {
        None => known == name,
        Some(schema) => known.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')) == Some(name),
    };
    if list.len() >= RELATIONS_MAX || list.iter().any(|known| same(known)) {
        return;
    }
    list.push(match schema {
        None => name.into(),
        Some(schema) => format!("{schema}.{name}").into(),
    });
}
