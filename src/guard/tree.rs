//! The children of each kind of node that the guard knows; a kind that is not here is not known, and refused.
//!
//! The binding's own `walk` recurses on the thread's stack, which a text of 40 KB can overflow: here children go onto a
//! list instead. Every field that holds nodes is pushed, so that nothing can hide in one that nobody thought of.

use pg_raw_parse::Node;
use pg_raw_parse::list::{CastNodeList, NodeList};

/// Where children are put.
pub(super) trait Push<T> {
    /// Puts a child, or each of a list.
    fn put(&mut self, child: T);
}

impl<'a> Push<Node<'a>> for Vec<Node<'a>> {
    fn put(&mut self, child: Node<'a>) {
        match child {
            // Leaves that say nothing by themselves need no visit of their own.
            Node::None | Node::A_Const(_) | Node::ParamRef(_) | Node::String(_) | Node::A_Star(_) => {}
            other => self.push(other),
        }
    }
}

impl<'a> Push<&'a NodeList> for Vec<Node<'a>> {
    fn put(&mut self, children: &'a NodeList) {
        for child in children {
            self.put(child);
        }
    }
}

macro_rules! typed {
    ($($kind:ident)*) => { $(
        impl<'a> Push<Option<&'a pg_raw_parse::nodes::$kind>> for Vec<Node<'a>> {
            fn put(&mut self, child: Option<&'a pg_raw_parse::nodes::$kind>) {
                if let Some(child) = child {
                    self.push(Node::$kind(child));
                }
            }
        }

        impl<'a> Push<&'a CastNodeList<pg_raw_parse::nodes::$kind>> for Vec<Node<'a>> {
            fn put(&mut self, children: &'a CastNodeList<pg_raw_parse::nodes::$kind>) {
                for child in children {
                    self.push(Node::$kind(child));
                }
            }
        }
    )* };
}

typed! {
    Alias CTECycleClause CTESearchClause CollateClause ColumnDef CommonTableExpr Constraint DefElem IndexElem
    InferClause IntoClause JsonAggConstructor JsonBehavior JsonFormat JsonKeyValue JsonOutput JsonReturning
    JsonTableColumn JsonTablePathSpec JsonValueExpr LockingClause MergeWhenClause OnConflictClause PartitionBoundSpec
    PartitionElem PartitionSpec RangeTableFuncCol RangeVar ResTarget ReturningClause ReturningOption RoleSpec
    SelectStmt SortBy TypeName WindowDef WithClause
}

macro_rules! children {
    ($node:ident, $into:ident; leaves $($leaf:ident)*; $($kind:ident { $($field:ident),* })*) => {
        match $node {
            $(Node::$leaf(_))|* => {}
            $(Node::$kind(inner) => { let _ = inner; $($into.put(inner.$field());)* })*
            _ => return Err(Unknown),
        }
    };
}

/// The guard does not know this kind of node.
#[derive(Debug)]
pub(super) struct Unknown;

/// Pushes what `node` holds onto `into`.
#[expect(clippy::too_many_lines, reason = "one table, a line for each kind")]
pub(super) fn children<'a>(node: Node<'a>, into: &mut Vec<Node<'a>>) -> Result<(), Unknown> {
    children! { node, into;
        leaves ATAlterConstraint A_Const A_Star Alias BitString Boolean CurrentOfExpr Float Integer JsonFormat MergeSupportFunc ParamRef
            RangeVar SQLValueFunction SetToDefault String;
        NodeList {}
        GroupingFunc { args }
        NamedArgExpr { arg }
        BoolExpr { args }
        SubLink { testexpr, subselect }
        CaseExpr { arg, args, defresult }
        CaseWhen { expr, result }
        RowExpr { args }
        CoalesceExpr { args }
        MinMaxExpr { args }
        XmlExpr { named_args, args }
        JsonValueExpr { raw_expr, formatted_expr, format }
        JsonIsPredicate { expr, format }
        JsonBehavior { expr }
        NullTest { arg }
        BooleanTest { arg }
        JoinExpr { larg, rarg, join_using_alias, quals, alias }
        TypeName { typmods, array_bounds }
        ColumnRef { fields }
        A_Expr { lexpr, rexpr }
        TypeCast { arg, type_name }
        CollateClause { arg }
        FuncCall { args, agg_order, agg_filter, over }
        A_Indices { lidx, uidx }
        A_Indirection { arg, indirection }
        A_ArrayExpr { elements }
        ResTarget { indirection, val }
        MultiAssignRef { source }
        SortBy { node }
        WindowDef { partition_clause, order_clause, start_offset, end_offset }
        RangeSubselect { subquery, alias }
        RangeFunction { functions, alias, coldeflist }
        RangeTableFunc { docexpr, rowexpr, namespaces, columns, alias }
        RangeTableFuncCol { type_name, colexpr, coldefexpr }
        RangeTableSample { relation, args, repeatable }
        ColumnDef { type_name, raw_default, cooked_default, identity_sequence, coll_clause, constraints, fdwoptions }
        IndexElem { expr, opclassopts }
        DefElem { arg }
        LockingClause {}
        XmlSerialize { expr, type_name }
        GroupingSet { content }
        WithClause { ctes }
        InferClause { index_elems, where_clause }
        OnConflictClause { infer, target_list, where_clause }
        CTESearchClause { search_col_list }
        CTECycleClause { cycle_col_list, cycle_mark_value, cycle_mark_default }
        CommonTableExpr { ctequery, search_clause, cycle_clause }
        MergeWhenClause { condition, target_list, values }
        ReturningOption {}
        ReturningClause { options, exprs }
        JsonReturning { format }
        JsonOutput { type_name, returning }
        JsonArgument { val }
        JsonFuncExpr { context_item, pathspec, passing, output, on_empty, on_error }
        JsonTablePathSpec { string }
        JsonTable { context_item, pathspec, passing, columns, on_error, alias }
        JsonTableColumn { type_name, pathspec, format, columns, on_empty, on_error }
        JsonKeyValue { key, value }
        JsonParseExpr { expr, output }
        JsonScalarExpr { expr, output }
        JsonSerializeExpr { expr, output }
        JsonObjectConstructor { exprs, output }
        JsonArrayConstructor { exprs, output }
        JsonArrayQueryConstructor { query, output, format }
        JsonAggConstructor { output, agg_filter, agg_order, over }
        JsonObjectAgg { constructor, arg }
        JsonArrayAgg { constructor, arg }
        // The statements' own relations are named by the walk, which knows whether they are read or written.
        InsertStmt { cols, select_stmt, on_conflict_clause, returning_clause }
        DeleteStmt { using_clause, where_clause, returning_clause }
        UpdateStmt { target_list, where_clause, from_clause, returning_clause }
        MergeStmt { source_relation, join_condition, merge_when_clauses, returning_clause }
        SelectStmt { distinct_clause, target_list, from_clause, where_clause, group_clause, having_clause,
            window_clause, values_lists, sort_clause, limit_offset, limit_count, locking_clause, larg, rarg }
        Constraint { raw_expr, options, where_clause, pktable }
        PartitionElem { expr }
        PartitionSpec { part_params }
        PartitionBoundSpec { listdatums, lowerdatums, upperdatums }
        PartitionRangeDatum { value }
        PartitionCmd { name, bound }
        TableLikeClause { relation }
        CreateStmt { table_elts, inh_relations, partbound, partspec, of_typename, constraints, nnconstraints, options }
        IndexStmt { relation, index_params, index_including_params, options, where_clause }
        ViewStmt { query, options }
        AlterTableStmt { relation, cmds }
        AlterTableCmd { newowner, def }
        IntoClause { options }
    }
    if let Node::NodeList(list) = node {
        into.put(list);
    }
    Ok(())
}
