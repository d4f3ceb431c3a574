//! Calls of functions, in any spelling: by name, or as if a column were named like one.

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::FuncCall;

use super::counters;
use super::functions::{Function, Why};
use super::no::{Answer, No};
use super::relations::LOCKS_SCHEMA;
use super::rewrite::{Edit, To};
use super::settings;
use super::verdict::{Change, ResetBy, Set, Taints, Value};
use super::walk::{Constant, Walk};
use crate::refusal::Kind;

impl<'a> Walk<'_, 'a> {
    /// Judges a call.
    pub fn call(&mut self, call: &'a FuncCall) -> Answer {
        let (schema, name) = function_name(call.funcname());
        let foreign = schema.is_some_and(|schema| schema.starts_with("pg_") && schema != "pg_catalog");
        if foreign {
            return Err(No::forbidden(format!("function \"{name}\" is refused: it is in a temporary schema")));
        }
        let function = match self.rules.functions.call(schema, name) {
            Function::SetConfig if self.is_accepted(call) => return Ok(()),
            Function::Rewrite if call.args().len() >= 3 && !call.func_variadic => return Ok(()),
            function => function,
        };
        match function {
            Function::AdvisoryLock { .. } | Function::AdvisoryUnlock { all: false }
                if self.rights.shares_database() =>
            {
                self.private_lock(schema, call.location)?;
            }
            _ => {}
        }
        self.function(function, name, call.location)
    }

    /// In a shared database the lock must be the organization's own: where the call is PostgreSQL's, its place is kept.
    fn private_lock(&mut self, schema: Option<&str>, location: i32) -> Answer {
        match (schema, usize::try_from(location)) {
            (Some(LOCKS_SCHEMA), _) => {}
            (None | Some("pg_catalog"), Ok(place)) => self.facts.edits.push(Edit { place, to: To::PrivateLock }),
            _ => {
                let message = "an advisory lock of another schema is refused in a database shared with others";
                return Err(No::forbidden(message).hint("Leave the schema out.").at(location));
            }
        }
        Ok(())
    }

    /// Judges a name behind a dot: PostgreSQL takes it for a function of what stands before, where no column has it.
    pub fn field(&mut self, name: &str, location: i32) -> Answer {
        let function = self.rules.functions.column(name);
        let locks = matches!(function, Function::AdvisoryLock { .. } | Function::AdvisoryUnlock { all: false });
        if locks && self.rights.shares_database() {
            return Err(No::forbidden("advisory locks are refused in this spelling, in a database shared with others")
                .hint(format!("Write {name}(…)."))
                .at(location));
        }
        self.function(function, name, location)
    }

    fn function(&mut self, function: Function, name: &str, location: i32) -> Answer {
        match function {
            Function::Plain => Ok(()),
            Function::Refused(why) => Err(refused(name, why)),
            Function::Rewrite => Err(refused(name, Why::RunsText)),
            Function::SetConfig => Err(No::forbidden("set_config is refused here: it must stand alone in SELECT")
                .hint("Write SELECT set_config('name', 'value', false), or use SET.")),
            Function::Seed => {
                self.facts.taint(Taints::SEED);
                Ok(())
            }
            Function::SimilarityLimit => {
                let name = "pg_trgm.similarity_threshold".into();
                self.facts.changes.push(Change::Set(Set {
                    name,
                    value: Value::Unknown,
                    local: Some(false),
                    magnitude: None,
                }));
                Ok(())
            }
            Function::NextValue => self.advance_sequence(),
            Function::CurrentValue => {
                self.facts.reads_sequence_state = true;
                Ok(())
            }
            Function::SequenceState if self.rights.shares_tables() => Err(counters::refused()),
            Function::SequenceState => Ok(()),
            Function::SetValue => self.set_value(),
            Function::AdvisoryLock { session } => {
                if session {
                    self.facts.taint(Taints::ADVISORY_LOCK);
                }
                self.facts.changes.push(Change::AdvisoryLock { session });
                Ok(())
            }
            Function::AdvisoryUnlock { all } => {
                self.facts.changes.push(Change::AdvisoryUnlock { all });
                Ok(())
            }
            Function::Notify => self.notify(),
        }
        .map_err(|no| no.at(location))
    }

    fn set_value(&mut self) -> Answer {
        if self.rights.shares_tables() {
            return Err(No::forbidden("setval is refused where sequences are shared with others")
                .hint("Insert the values that you need."));
        }
        self.advance_sequence()
    }

    /// A sequence's state is data: PostgreSQL refuses both in a read-only transaction.
    fn advance_sequence(&mut self) -> Answer {
        if self.rights.is_read_only() {
            return Err(No::new(Kind::ReadOnly, "this session may only read, so it may not advance a sequence"));
        }
        self.facts.wrote = true;
        self.facts.taint(Taints::SEQUENCES);
        Ok(())
    }

    /// Judges NOTIFY in either form.
    pub fn notify(&mut self) -> Answer {
        if self.rights.shares_database() {
            return Err(No::forbidden("NOTIFY is refused in a database shared with others: they would hear it")
                .hint("Use a queue of your own, in a table."));
        }
        self.facts.changes.push(Change::Notify);
        Ok(())
    }

    /// Judges a call of `set_config` that stands alone in a SELECT. `from_settings` is the name that the statement
    /// compares `pg_settings.name` with, where it reads the name from there.
    pub fn set_config(&mut self, call: &'a FuncCall, from_settings: Option<&str>) -> Answer {
        let mut arguments = call.args().iter();
        let (Some(name), Some(value), Some(local), None) =
            (arguments.next(), arguments.next(), arguments.next(), arguments.next())
        else {
            return Ok(()); // no such function; the walk refuses what is not accepted
        };
        if call.func_variadic
            || call.agg_star
            || [name, value, local].iter().any(|a| matches!(a, Node::NamedArgExpr(_)))
        {
            return Ok(());
        }
        let name = match (self.constant(name), from_settings) {
            (Constant::Text(name), _) => name,
            (_, Some(name)) if is_column(call.args().get(0), "name") => name,
            _ => {
                return Err(No::forbidden(
                    "set_config is refused: the name of the setting must be written as a constant",
                )
                .hint("Write the name in quotes: set_config('TimeZone', …, false).")
                .at(call.location));
            }
        };
        let name = settings::canonical(name);
        let local = match self.constant(local) {
            Constant::Boolean(local) => Some(local),
            _ => None,
        };
        let no_at = |no: No| no.at(call.location);
        match config_value(self.constant(value)) {
            None => {
                self.rules.settings.may_reset(&name, self.rights).map_err(no_at)?;
                let local = local.unwrap_or(false);
                self.facts.changes.push(Change::Reset { name, local, by: ResetBy::Call });
            }
            Some(given) => self.set(name, given, local, place(value)).map_err(no_at)?,
        }
        self.accepted.insert(std::ptr::from_ref(call));
        Ok(())
    }

    /// Judges one setting's new value, written at `place` in bytes (if it is one constant), and remembers it; a value above
    /// the tier's limit, or one that could be read in two ways, is to be written anew.
    pub fn set(&mut self, name: Box<str>, value: Value, local: Option<bool>, place: Option<usize>) -> Answer {
        let magnitude = self.rules.settings.may_set(&name, &value, self.rights)?;
        if let Some(number) = magnitude.and_then(|magnitude| magnitude.anew(self.rights.limit(&name))) {
            let place = place.ok_or_else(|| {
                No::forbidden(format!("setting \"{name}\" can be lowered but not raised"))
                    .hint("Write its value as one constant, without a fraction.")
            })?;
            self.facts.edits.push(Edit { place, to: To::Number(number) });
        }
        let magnitude = magnitude.map(|magnitude| magnitude.number);
        if name.contains('.') {
            self.facts.taint(Taints::CUSTOM_SETTING);
        }
        // It is over with its transaction, whatever the statement says.
        let local = if settings::is_of_the_transaction(&name) { Some(true) } else { local };
        self.facts.changes.push(Change::Set(Set { name, value, local, magnitude }));
        Ok(())
    }
}

/// Where a constant stands in the text, in bytes; inside a cast, where the constant does.
pub(super) fn place(node: Node<'_>) -> Option<usize> {
    match node {
        Node::A_Const(constant) => usize::try_from(constant.location).ok(),
        Node::TypeCast(cast) => match cast.arg() {
            Node::A_Const(constant) => usize::try_from(constant.location).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a node is a column of this name, with or without a relation before it.
fn is_column(node: Option<Node<'_>>, name: &str) -> bool {
    match node {
        Some(Node::ColumnRef(column)) => column.fields().iter().next_back().and_then(Node::as_str) == Some(name),
        _ => false,
    }
}

/// The value given to `set_config`; none for NULL, which resets.
fn config_value(given: Constant<'_>) -> Option<Value> {
    match given {
        Constant::Text(text) => Some(Value::Literal(text.into())),
        Constant::Null => None,
        Constant::Parameter(number) => Some(Value::Parameter(number)),
        Constant::Integer(_) | Constant::Boolean(_) | Constant::Other => Some(Value::Unknown),
    }
}

/// A function's schema, if the text names it, and its name.
fn function_name(names: &NodeList) -> (Option<&str>, &str) {
    let mut parts = names.iter().rev().filter_map(Node::as_str);
    let name = parts.next().unwrap_or_default();
    (parts.next(), name)
}

fn refused(name: &str, why: Why) -> No {
    No::forbidden(format!("function \"{name}\" is refused: {}", why.reason())).hint(why.hint())
}
