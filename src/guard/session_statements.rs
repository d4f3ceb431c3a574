//! Statements about the session itself: settings, transactions, channels.

use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{DefElem, DiscardStmt, TransactionStmt, VariableSetStmt};
use pg_raw_parse::raw::{DiscardMode, TransactionStmtKind as Kinds, VariableSetKind};
use pg_raw_parse::{ConstValue, Node};

use super::calls::place;
use super::no::{Answer, No};
use super::settings::{canonical, is_name_list};
use super::verdict::{Change, ResetBy, Taints, Value};
use super::walk::{Constant, Walk};
use crate::event::StatementClass as Class;

impl<'a> Walk<'_, 'a> {
    /// Judges a statement about the session; none if it is of another kind.
    pub(super) fn session_statement(&mut self, node: Node<'a>) -> Option<Answer<Class>> {
        let answer = match node {
            Node::TransactionStmt(transaction) => self.transaction(transaction).map(|()| Class::Transaction),
            Node::VariableSetStmt(set) => self.variable_set(set).map(|()| Class::Session),
            Node::DiscardStmt(discard) => self.discard(discard).map(|()| Class::Session),
            Node::VariableShowStmt(_) => Ok(Class::Session),
            Node::ConstraintsSetStmt(_) => Ok(Class::Session),
            Node::ListenStmt(listen) => self.listen(listen.conditionname()),
            Node::UnlistenStmt(unlisten) => {
                self.change(Change::Unlisten(unlisten.conditionname().map(Into::into)));
                Ok(Class::Session)
            }
            Node::NotifyStmt(_) => self.notify().map(|()| Class::Utility),
            _ => return None,
        };
        Some(answer)
    }

    fn listen(&mut self, channel: Option<&str>) -> Answer<Class> {
        if self.rights.shares_database() {
            return Err(No::forbidden("LISTEN is refused in a database shared with others: channels are shared too")
                .hint("Poll a table of your own."));
        }
        self.facts.taint(Taints::LISTEN);
        self.change(Change::Listen(channel.unwrap_or_default().into()));
        Ok(Class::Session)
    }

    fn transaction(&mut self, statement: &'a TransactionStmt) -> Answer {
        let chain = statement.chain;
        let name = || statement.savepoint_name().unwrap_or_default().into();
        let change = match statement.kind {
            Kinds::TRANS_STMT_BEGIN | Kinds::TRANS_STMT_START => {
                self.modes(statement.options(), |_, _, _| Ok(()))?;
                Change::Begin
            }
            Kinds::TRANS_STMT_COMMIT => Change::Commit { chain },
            Kinds::TRANS_STMT_ROLLBACK => Change::Rollback { chain },
            Kinds::TRANS_STMT_SAVEPOINT => Change::Savepoint(name()),
            Kinds::TRANS_STMT_RELEASE => Change::Release(name()),
            Kinds::TRANS_STMT_ROLLBACK_TO => Change::RollbackTo(name()),
            _ => {
                return Err(
                    No::unsupported("prepared transactions are not supported through the proxy").hint("Use COMMIT.")
                );
            }
        };
        self.change(change);
        Ok(())
    }

    /// Judges transaction modes (BEGIN, SET TRANSACTION, SET SESSION CHARACTERISTICS) and hands each to `keep`.
    fn modes(&mut self, options: &'a NodeList, mut keep: impl FnMut(&mut Self, &str, Value) -> Answer) -> Answer {
        for option in options {
            let Node::DefElem(option) = option else {
                return Err(No::unsupported("a transaction mode that the guard does not know"));
            };
            let (name, value) = mode(option, self.constant(option.arg()))?;
            self.rules.settings.may_set(name, &value, self.rights)?;
            keep(self, name, value)?;
        }
        Ok(())
    }

    fn variable_set(&mut self, set: &'a VariableSetStmt) -> Answer {
        let name = canonical(set.name().unwrap_or_default());
        match set.kind {
            VariableSetKind::VAR_SET_VALUE => {
                let value = value(&name, set.args());
                let only = if set.args().len() == 1 { set.args().get(0) } else { None };
                self.set(name, value, Some(set.is_local), only.and_then(place))
            }
            VariableSetKind::VAR_SET_DEFAULT | VariableSetKind::VAR_RESET => {
                self.rules.settings.may_reset(&name, self.rights)?;
                let by = if set.kind == VariableSetKind::VAR_RESET { ResetBy::Reset } else { ResetBy::Set };
                let local = set.is_local && by == ResetBy::Set;
                self.change(Change::Reset { name, local, by });
                Ok(())
            }
            VariableSetKind::VAR_RESET_ALL => {
                self.change(Change::ResetAll);
                Ok(())
            }
            VariableSetKind::VAR_SET_MULTI => match &*name {
                "transaction" => self.modes(set.args(), |_, _, _| Ok(())),
                "session characteristics" => self.modes(set.args(), |walk, name, value| {
                    walk.set(format!("default_{name}").into(), value, Some(false), None)
                }),
                _ => Err(No::unsupported("snapshots cannot be shared through the proxy")),
            },
            _ => Err(No::unsupported("SET … FROM CURRENT is for functions")),
        }
    }

    fn discard(&mut self, discard: &DiscardStmt) -> Answer {
        self.change(match discard.target {
            DiscardMode::DISCARD_ALL => Change::DiscardAll,
            DiscardMode::DISCARD_PLANS => Change::DiscardPlans,
            DiscardMode::DISCARD_SEQUENCES => Change::DiscardSequences,
            DiscardMode::DISCARD_TEMP => Change::DiscardTemp,
            _ => return Err(No::unsupported("a kind of DISCARD that the guard does not know")),
        });
        Ok(())
    }
}

/// A transaction mode as a setting: `transaction_isolation`, `transaction_read_only` or `transaction_deferrable`.
fn mode<'a>(option: &'a DefElem, given: Constant<'a>) -> Answer<(&'a str, Value)> {
    let value = match given {
        Constant::Text(text) => Value::Literal(text.into()),
        Constant::Integer(number) => Value::Literal(if number == 0 { "off" } else { "on" }.into()),
        _ => Value::Unknown,
    };
    match option.defname() {
        Some(name @ ("transaction_isolation" | "transaction_read_only" | "transaction_deferrable")) => {
            Ok((name, value))
        }
        _ => Err(No::unsupported("a transaction mode that the guard does not know")),
    }
}

/// The value of SET, flattened as PostgreSQL does (guc_funcs.c, `flatten_set_variable_args`).
fn value(name: &str, arguments: &NodeList) -> Value {
    let mut text = String::new();
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        match argument {
            Node::A_Const(argument) => match argument.val() {
                Some(ConstValue::Integer(number)) => text.push_str(&number.to_string()),
                Some(ConstValue::Float(number)) => text.push_str(number),
                Some(ConstValue::String(word)) if is_name_list(name) => quote_name(&mut text, word),
                Some(ConstValue::String(word)) => text.push_str(word),
                _ => return Value::Unknown,
            },
            // SET TIME ZONE INTERVAL '…' is the one form with a cast.
            Node::TypeCast(cast) => match (name, cast.arg()) {
                ("timezone", Node::A_Const(argument)) => match argument.val() {
                    Some(ConstValue::String(word)) if !word.contains('\'') => {
                        text.push_str("INTERVAL '");
                        text.push_str(word);
                        text.push('\'');
                    }
                    _ => return Value::Unknown,
                },
                _ => return Value::Unknown,
            },
            _ => return Value::Unknown,
        }
    }
    Value::Literal(text.into())
}

/// Appends a name, in double quotes where it needs them, as `quote_identifier` does (ruleutils.c) but for keywords.
fn quote_name(text: &mut String, name: &str) {
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    let starts_plain = name.chars().next().is_some_and(|first| !first.is_ascii_digit());
    if starts_plain && name.chars().all(plain) {
        text.push_str(name);
        return;
    }
    text.push('"');
    for character in name.chars() {
        if character == '"' {
            text.push('"');
        }
        text.push(character);
    }
    text.push('"');
}
