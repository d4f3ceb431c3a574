//! A source file as its tokens, without comments, words of documentation, attributes and tests.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// One file below `src/`.
pub struct Source {
    /// Where it lies below `src/`.
    pub name: String,
    /// The room it belongs to: the first part of its name.
    pub room: String,
    /// Its module's depth: 1 for a room's face.
    pub depth: usize,
    /// Whether it opens with `//!`.
    pub says_its_job: bool,
    /// What is left of it, in order.
    pub tokens: Vec<Token>,
    /// How many lines hold code that is not a test.
    pub code_lines: usize,
    /// Names below `src/`, without ending, of modules that it declares for tests only.
    pub test_files: Vec<String>,
}

/// A token, groups opened up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// As written; `::` is one token.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
}

impl Source {
    /// Takes the file apart.
    pub fn read(name: &str, text: &str) -> Self {
        let stem = name.trim_end_matches(".rs");
        let module = stem.trim_end_matches("/mod");
        let stream: TokenStream = text.parse().map_err(|error| format!("{name}: {error}")).expect("it is Rust");
        let folder = if stem.ends_with("/mod") || !module.contains('/') { module.to_owned() } else { stem.to_owned() };
        let mut reader = Reader { folder, ..Reader::default() };
        reader.stream(stream);
        Self {
            name: name.to_owned(),
            room: module.split('/').next().unwrap_or_default().to_owned(),
            depth: module.split('/').count(),
            says_its_job: text.starts_with("//!"),
            tokens: reader.tokens,
            code_lines: reader.lines.len(),
            test_files: reader.test_files,
        }
    }

    /// Whether it is the module of that name, or lies in its folder.
    pub fn is_within(&self, module: &str) -> bool {
        let rest = self.name.strip_prefix(module);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }
}

#[derive(Default)]
struct Reader {
    /// Where modules that the file declares lie.
    folder: String,
    tokens: Vec<Token>,
    lines: BTreeSet<usize>,
    test_files: Vec<String>,
}

impl Reader {
    fn stream(&mut self, stream: TokenStream) {
        let trees: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(tree) = trees.get(at) {
            if let Some((attribute, length)) = attribute(&trees[at..]) {
                at += length;
                if is_test(attribute) {
                    at += self.skip_item(&trees[at..]);
                } else if !is_doc(attribute) {
                    self.lines.insert(attribute.span_open().start().line);
                }
                continue;
            }
            at += self.tree(tree, trees.get(at + 1));
        }
    }

    /// Notes one tree; says how many it was.
    fn tree(&mut self, tree: &TokenTree, next: Option<&TokenTree>) -> usize {
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = delimiters(group.delimiter());
                self.note(open, group.span_open().start().line);
                self.stream(group.stream());
                self.note(close, group.span_close().end().line);
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                if matches!(next, Some(TokenTree::Punct(next)) if next.as_char() == ':') {
                    self.note("::", punct.span().start().line);
                    return 2;
                }
                self.note(":", punct.span().start().line);
            }
            other => {
                self.note(&other.to_string(), other.span().start().line);
                self.lines.extend(other.span().start().line..=other.span().end().line);
            }
        }
        1
    }

    fn note(&mut self, text: &str, line: usize) {
        self.lines.insert(line);
        self.tokens.push(Token { text: text.to_owned(), line });
    }

    /// Passes over an item for tests only: up to its body or its semicolon.
    fn skip_item(&mut self, trees: &[TokenTree]) -> usize {
        for (index, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return index + 1,
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    if let [.., TokenTree::Ident(word), TokenTree::Ident(name)] = &trees[..index]
                        && word == "mod"
                    {
                        self.test_files.push(format!("{}/{name}", self.folder));
                    }
                    return index + 1;
                }
                _ => {}
            }
        }
        trees.len()
    }
}

/// The attribute that stands first, and how many trees it is; an inner one too.
fn attribute(trees: &[TokenTree]) -> Option<(&Group, usize)> {
    let is = |tree: &TokenTree, sign| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == sign);
    match trees {
        [hash, TokenTree::Group(group), ..] if is(hash, '#') => Some((group, 2)),
        [hash, bang, TokenTree::Group(group), ..] if is(hash, '#') && is(bang, '!') => Some((group, 3)),
        _ => None,
    }
}

fn is_doc(attribute: &Group) -> bool {
    attribute.stream().into_iter().next().is_some_and(|first| first.to_string() == "doc")
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`; not `#[cfg(not(test))]`, `#[cfg_attr(test, …)]`.
fn is_test(attribute: &Group) -> bool {
    let words: Vec<_> = attribute.stream().into_iter().collect();
    match words.as_slice() {
        [TokenTree::Ident(cfg), TokenTree::Group(condition)] if cfg == "cfg" => {
            let mut reader = Reader::default();
            reader.stream(condition.stream());
            let has = |word: &str| reader.tokens.iter().any(|token| token.text == word);
            has("test") && !has("not") && !has("any")
        }
        [.., TokenTree::Ident(last)] => last == "test",
        [.., TokenTree::Ident(last), TokenTree::Group(_)] => last == "test",
        _ => false,
    }
}

fn delimiters(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}
