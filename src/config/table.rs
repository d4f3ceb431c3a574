//! Reads one table of a file key by key: each wrong value is noted and read as absent, so that one fault hides no other.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::page::{Need, Page};
use super::secret::SecretRef;

/// The longest text that a key may hold, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// One table while it is read; reports the keys that nobody asked for when it is closed.
pub(super) struct Table<'t> {
    page: &'t Page,
    entries: Option<&'t DeTable<'t>>,
    line: Option<usize>,
    key: String,
    shape: String,
    asked: RefCell<Vec<&'static str>>,
    /// Keys that are refused with words of their own, and keys whose value was wrong.
    told: RefCell<Vec<&'static str>>,
}

/// A number, or a word in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Number(u64),
    Unlimited,
    Dedicated,
}

impl<'t> Table<'t> {
    /// The table that a file is.
    pub(super) fn root(page: &'t Page, entries: &'t DeTable<'t>) -> Self {
        Self::new(page, Some(entries), None, String::new(), String::new())
    }

    fn new(page: &'t Page, entries: Option<&'t DeTable<'t>>, line: Option<usize>, key: String, shape: String) -> Self {
        Self { page, entries, line, key, shape, asked: RefCell::default(), told: RefCell::default() }
    }

    /// The line of `key`, else of the table.
    fn line_of(&self, key: &str) -> Option<usize> {
        let entry = self.entries.and_then(|entries| entries.get_key_value(key));
        entry.map_or(self.line, |(key, _)| Some(self.page.line_of(key.span().start)))
    }

    fn dotted(&self, key: &str) -> String {
        join(&self.key, key)
    }

    /// Notes that `key` is wrong.
    pub(super) fn fault(&self, key: &'static str, message: impl Into<String>) {
        self.told.borrow_mut().push(key);
        self.page.fault(self.line_of(key), self.dotted(key), message.into());
    }

    /// Notes that the table itself is wrong.
    pub(super) fn fault_here(&self, message: impl Into<String>) {
        self.page.fault(self.line, self.key.clone(), message.into());
    }

    /// Whether nothing wrong was noted about these keys, so that comparing them makes sense.
    pub(super) fn sound(&self, keys: &[&'static str]) -> bool {
        let told = self.told.borrow();
        !keys.iter().any(|key| told.contains(key))
    }

    /// Whether the file has `key`, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    fn ask(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.page.known(join(&self.shape, key));
        self.entries.and_then(|entries| entries.get(key))
    }

    /// Notes that `key` must be there, unless it is, or the file is torn.
    pub(super) fn require(&self, key: &'static str, what: &str) {
        if !self.has(key) && !self.page.torn() {
            self.fault(key, format!("missing ({what})"));
        }
    }

    /// Refuses `key`, which would hold a secret, with the keys to use in its place.
    pub(super) fn refuse_inline(&self, key: &'static str, instead: &str) {
        if self.has(key) {
            self.fault(key, format!("a secret is never written here (use {instead})"));
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let value = self.ask(key)?.get_ref();
        let Some(text) = value.as_str() else {
            self.fault(key, format!("{}, not a text (\"…\")", a(value)));
            return None;
        };
        match text_fault(text) {
            Some(wrong) => {
                self.fault(key, wrong);
                None
            }
            None => Some(text.to_owned()),
        }
    }

    /// A text that `judge` accepts; it gives the fault otherwise.
    pub(super) fn checked<T>(&self, key: &'static str, judge: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        judge(&text).map_err(|wrong| self.fault(key, wrong)).ok()
    }

    /// One of a closed list of words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        self.checked(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                format!("not a word known here ({})", all.join(" | "))
            })
        })
    }

    /// True or false.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.ask(key)?.get_ref();
        let flag = value.as_bool();
        if flag.is_none() {
            self.fault(key, format!("{}, not true or false", a(value)));
        }
        flag
    }

    /// A list of texts that are not empty.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.ask(key)?.get_ref();
        let Some(array) = value.as_array() else {
            self.fault(key, format!("{}, not a list of texts ([\"…\"])", a(value)));
            return None;
        };
        let texts: Option<Vec<_>> = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        match texts {
            Some(texts) if texts.iter().all(|text| text_fault(text).is_none()) => Some(texts),
            Some(_) => {
                self.fault(key, "holds a text that is empty, too long or not printable");
                None
            }
            None => {
                self.fault(key, "holds something else than texts ([\"…\"])");
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.ask(key)?.get_ref();
        self.number_of(key, value, &range, "")
    }

    /// [`Self::number`], for what is counted in memory.
    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.number(key, range).and_then(|number| usize::try_from(number).ok())
    }

    /// [`Self::number`] of seconds.
    pub(super) fn seconds(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, range).map(Duration::from_secs)
    }

    /// A whole number in a range, or one of `words`.
    pub(super) fn amount(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        words: &[(&'static str, Amount)],
    ) -> Option<Amount> {
        let value = self.ask(key)?.get_ref();
        if let Some((_, amount)) = words.iter().find(|(word, _)| value.as_str() == Some(word)) {
            return Some(*amount);
        }
        let words: String = words.iter().map(|(word, _)| format!(", or \"{word}\"")).collect();
        self.number_of(key, value, &range, &words).map(Amount::Number)
    }

    fn number_of(
        &self,
        key: &'static str,
        value: &DeValue<'_>,
        range: &RangeInclusive<u64>,
        words: &str,
    ) -> Option<u64> {
        let allowed = format!("(a whole number from {} to {}{words})", range.start(), range.end());
        let Some(integer) = value.as_integer() else {
            self.fault(key, format!("{}, not a number {allowed}", a(value)));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(key, format!("out of range {allowed}"));
        }
        number
    }

    /// An IP address and a port.
    pub(super) fn address(&self, key: &'static str) -> Option<SocketAddr> {
        self.checked(key, |text| {
            text.parse().map_err(|_| "not an IP address and port (as \"127.0.0.1:6432\" or \"[::]:6432\")".to_owned())
        })
    }

    /// The path of a file that must be readable.
    pub(super) fn file(&self, key: &'static str) -> Option<PathBuf> {
        self.path(key, Need::File)
    }

    /// A path, of which `need` says what must be there.
    pub(super) fn path(&self, key: &'static str, need: fn(PathBuf) -> Need) -> Option<PathBuf> {
        let path = self.page.resolve(&self.text(key)?);
        self.page.need(self.line_of(key), self.dotted(key), need(path.clone()));
        Some(path)
    }

    /// A path as the file means it, for texts that are paths only sometimes.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.page.resolve(path)
    }

    /// A secret by file, or by environment variable, but not both.
    pub(super) fn secret(
        &self,
        file_key: &'static str,
        env_key: &'static str,
        need: fn(SecretRef) -> Need,
    ) -> Option<SecretRef> {
        let file = self.text(file_key).map(|text| (file_key, SecretRef::File(self.page.resolve(&text))));
        let env = self.checked(env_key, variable_name).map(|name| (env_key, SecretRef::Env(name)));
        if self.has(file_key) && self.has(env_key) {
            self.fault(env_key, format!("one secret from two places (either {file_key} or {env_key})"));
            return None;
        }
        let (key, secret) = file.or(env)?;
        self.page.need(self.line_of(key), self.dotted(key), need(secret.clone()));
        Some(secret)
    }

    /// A table in this one; an absent one where there is none.
    pub(super) fn table(&self, key: &'static str) -> Table<'t> {
        let (dotted, shape) = (self.dotted(key), join(&self.shape, key));
        let Some(value) = self.ask(key) else {
            return Self::new(self.page, None, self.line, dotted, shape);
        };
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            self.fault(key, format!("{}, not a table ([{dotted}])", a(value.get_ref())));
        }
        Self::new(self.page, entries, self.line_of(key), dotted, shape)
    }

    /// The tables of an array (`[[key]]`).
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'t>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let dotted = self.dotted(key);
        let Some(array) = value.get_ref().as_array() else {
            self.fault(key, format!("{}, not a list of tables ([[{dotted}]])", a(value.get_ref())));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (nth, item) in array.iter().enumerate() {
            let line = Some(self.page.line_of(item.span().start));
            let item_key = format!("{dotted}[{}]", nth + 1);
            match item.get_ref().as_table() {
                Some(entries) => {
                    let shape = format!("{}[]", join(&self.shape, key));
                    tables.push(Self::new(self.page, Some(entries), line, item_key, shape));
                }
                None => self.page.fault(line, item_key, format!("{}, not a table", a(item.get_ref()))),
            }
        }
        tables
    }

    /// Every key with its table, for tables whose keys are names that the operator chooses.
    pub(super) fn named_tables(&self) -> Vec<(String, Table<'t>)> {
        let mut tables = Vec::new();
        for (name, value) in self.entries.into_iter().flatten() {
            let line = Some(self.page.line_of(name.span().start));
            let dotted = self.dotted(name.get_ref());
            match value.get_ref().as_table() {
                Some(entries) => {
                    let shape = join(&self.shape, "*");
                    tables.push((name.get_ref().to_string(), Self::new(self.page, Some(entries), line, dotted, shape)));
                }
                None => self.page.fault(line, dotted, format!("{}, not a table", a(value.get_ref()))),
            }
        }
        tables
    }

    /// Every key with its list of words, for tables whose keys are names that the operator chooses.
    pub(super) fn named_words<T: Copy>(&self, words: &[(&'static str, T)]) -> Vec<(String, Vec<T>)> {
        self.page.known(join(&self.shape, "*"));
        let mut lists = Vec::new();
        for (name, value) in self.entries.into_iter().flatten() {
            match word_list(value.get_ref(), words) {
                Ok(list) => lists.push((name.get_ref().to_string(), list)),
                Err(wrong) => {
                    let line = Some(self.page.line_of(name.span().start));
                    self.page.fault(line, self.dotted(name.get_ref()), wrong);
                }
            }
        }
        lists
    }

    /// A list of words of a closed list.
    pub(super) fn words<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<Vec<T>> {
        let value = self.ask(key)?.get_ref();
        word_list(value, words).map_err(|wrong| self.fault(key, wrong)).ok()
    }

    /// Notes that a name among [`Self::named_words`] is wrong.
    pub(super) fn fault_at(&self, name: &str, message: impl Into<String>) {
        self.page.fault(self.line_of(name), self.dotted(name), message.into());
    }

    /// Refuses every key that nobody asked for, with the nearest of those that somebody did.
    pub(super) fn close(&self) {
        let (asked, told) = (self.asked.borrow(), self.told.borrow());
        for (key, _) in self.entries.into_iter().flatten() {
            let text: &str = key.get_ref();
            if asked.contains(&text) || told.contains(&text) {
                continue;
            }
            let likeness = |known: &&&str| (strsim::jaro_winkler(text, known) * 1e6) as u32;
            let nearest = asked.iter().max_by_key(likeness).copied().unwrap_or_default();
            let message = format!("unknown key (the nearest known one is `{nearest}`)");
            self.page.fault(Some(self.page.line_of(key.span().start)), self.dotted(text), message);
        }
    }
}

fn join(table: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-*".contains(&byte));
    let key = if bare { key.to_owned() } else { format!("{:?}", bounded(key)) };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

/// The beginning of a text that may be long.
fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}

fn a(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn text_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("empty (leave the key out instead)")
    } else if text.len() > TEXT_BYTES_MAX {
        Some("too long (at most 4096 bytes)")
    } else if text.chars().any(char::is_control) {
        Some("holds a control character")
    } else {
        None
    }
}

fn variable_name(text: &str) -> Result<String, String> {
    let tail = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.bytes().all(tail) && !text.starts_with(|first: char| first.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("not the name of an environment variable (letters, digits and _)".to_owned())
    }
}

fn word_list<T: Copy>(value: &DeValue<'_>, words: &[(&'static str, T)]) -> Result<Vec<T>, String> {
    let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let allowed = format!("(a list of {})", all.join(", "));
    let array = value.as_array().ok_or_else(|| format!("{}, not a list {allowed}", a(value)))?;
    let meaning = |item: &Spanned<DeValue<'_>>| {
        let word = item.get_ref().as_str();
        words.iter().find(|(known, _)| word == Some(known)).map(|(_, meaning)| *meaning)
    };
    array.iter().map(meaning).collect::<Option<_>>().ok_or_else(|| format!("holds a word not known here {allowed}"))
}
