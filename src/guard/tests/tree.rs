//! The list of children against PostgreSQL's own walker: nothing that it visits may be missing.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use pg_raw_parse::Node;

use crate::guard::tree::{Push, children};

type Counts<'a> = HashMap<Discriminant<Node<'a>>, usize>;

fn is_of_rows(node: &Node<'_>) -> bool {
    matches!(
        node,
        Node::SelectStmt(_) | Node::InsertStmt(_) | Node::UpdateStmt(_) | Node::DeleteStmt(_) | Node::MergeStmt(_)
    )
}

/// Visits as the walk does, with what the walk itself adds: targets and WITH clauses.
fn ours(root: Node<'_>) -> Counts<'_> {
    let mut counts = Counts::new();
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        *counts.entry(discriminant(&node)).or_default() += 1;
        children(node, &mut stack).expect("the walk knows it");
        let (target, with) = match node {
            Node::SelectStmt(select) => (select.into_clause().and_then(|into| into.rel()), select.with_clause()),
            Node::InsertStmt(insert) => (insert.relation(), insert.with_clause()),
            Node::UpdateStmt(update) => (update.relation(), update.with_clause()),
            Node::DeleteStmt(delete) => (delete.relation(), delete.with_clause()),
            Node::MergeStmt(merge) => (merge.relation(), merge.with_clause()),
            _ => (None, None),
        };
        stack.put(target);
        stack.put(with);
    }
    counts
}

fn theirs(root: Node<'_>) -> (Counts<'_>, HashMap<Discriminant<Node<'_>>, String>) {
    let (mut counts, mut names) = (Counts::new(), HashMap::new());
    pg_raw_parse::walk::walk(root, |node| {
        *counts.entry(discriminant(&node)).or_default() += 1;
        let name = || format!("{node:?}").chars().take(30).collect();
        names.entry(discriminant(&node)).or_insert_with(name);
    });
    (counts, names)
}

#[test]
fn every_node_that_postgres_walks_is_walked() {
    let mut compared = 0;
    for sql in super::attacks::lines(super::attacks::FORBIDDEN).chain(super::attacks::lines(super::honest::HONEST)) {
        let tree = pg_raw_parse::parse(sql).unwrap();
        for root in tree.stmts().filter(is_of_rows) {
            let ours = ours(root);
            let (theirs, names) = theirs(root);
            for (kind, count) in theirs {
                let leaf = ["String(", "A_Const(", "ParamRef(", "A_Star(", "NodeList", "[", "IntoClause", "Alias("];
                let name = &names[&kind];
                if leaf.iter().any(|leaf| name.starts_with(leaf)) {
                    continue;
                }
                let found = ours.get(&kind).copied().unwrap_or_default();
                assert!(found >= count, "{sql}: {name} {found} of {count}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1_000, "{compared}");
}
