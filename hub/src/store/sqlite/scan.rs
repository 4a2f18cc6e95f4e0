//! Scans over `placements`, in (target, key) order.
//!
//! Rows carry kinds as integers, which do not sort as kinds do. So a scan goes target by target and
//! kind by kind, each a range of one index, and never sorts: page after page costs what it returns.

use std::fmt::Write;

use lockstep_engine::status::State;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey};
use rusqlite::{ToSql, params, params_from_iter};

use super::Inner;
use super::placements::{TABLE, read, select_placement};
use super::row::{Columns, first, limit as sql_limit, query};
use crate::store::{PlacementCursor, PlacementFilter, PlacementRow, StoreError, SummaryRow};

/// One pass over an index that has all it needs, already grouped.
pub(super) const SUMMARY: &str = "SELECT policy, target, state, reason, count(*), max(iif(state = 0, lag_ms, NULL)), \
    min(since) FROM placements \
    GROUP BY policy, target, state, reason ORDER BY policy, target, state, reason";
pub(super) const SUMMARY_OF_POLICY: &str = "SELECT policy, target, state, reason, count(*), max(iif(state = 0, lag_ms, NULL)), \
    min(since) FROM placements WHERE policy = ?1 \
    GROUP BY policy, target, state, reason ORDER BY policy, target, state, reason";

/// `AND state IN (0, 4)`, or nothing. Numbers only: there is nothing to escape.
fn states(states: &[State]) -> String {
    let mut sql = String::new();
    if !states.is_empty() {
        let mut ordinals: Vec<u8> = states.iter().map(|state| state.ordinal()).collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        for (n, ordinal) in ordinals.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = write!(sql, "{}{ordinal}", if n == 0 { " AND state IN (" } else { ", " });
        }
        sql.push(')');
    }
    sql
}

/// Only deletes that are held; see `DeleteStage`.
fn held_only(held: bool) -> &'static str {
    if held { " AND delete_stage = 3" } else { "" }
}

impl Inner {
    pub(super) fn placements(
        &mut self,
        filter: &PlacementFilter,
        after: Option<&PlacementCursor>,
        limit: usize,
    ) -> Result<Vec<PlacementRow>, StoreError> {
        let kinds = match &filter.gk {
            None => self.kinds.all(&self.db)?,
            Some(gk) => self.kinds.id(&self.db, gk)?.map(|id| (gk.clone(), id)).into_iter().collect(),
        };
        let page = page_sql(filter);
        let mut found = Vec::new();
        let mut from = after.map_or(0, |(target, _)| target.0);
        while found.len() < limit {
            let Some(target) = self.next_target(filter, from)? else { break };
            if self.may_match(filter, target)? {
                for (gk, kind) in &kinds {
                    let cursor = match after {
                        Some((at, key)) if at.0 == target && *gk < key.gk => continue,
                        Some((at, key)) if at.0 == target && *gk == key.gk => Some(key),
                        _ => None,
                    };
                    self.page(filter, &page, (target, *kind, gk), cursor, limit, &mut found)?;
                }
            }
            let Some(next) = target.checked_add(1) else { break };
            from = next;
        }
        Ok(found)
    }

    /// The first target at or after `from` that has a placement of the filter's policy or source.
    fn next_target(&mut self, filter: &PlacementFilter, from: u32) -> Result<Option<u32>, StoreError> {
        if let Some(target) = filter.target {
            return Ok((target.0 >= from).then_some(target.0));
        }
        let read = |row: &Columns<'_>| row.u32(0);
        match (&filter.policy, filter.source) {
            (Some(policy), _) => first(
                &self.db,
                TABLE,
                "SELECT target FROM placements WHERE policy = ?1 AND target >= ?2 ORDER BY target LIMIT 1",
                params![policy, from],
                read,
            ),
            (None, Some(source)) => first(
                &self.db,
                TABLE,
                "SELECT target FROM placements WHERE source_cluster = ?1 AND target >= ?2 \
                 ORDER BY target LIMIT 1",
                params![source.0, from],
                read,
            ),
            (None, None) => first(
                &self.db,
                TABLE,
                "SELECT target FROM placements WHERE target >= ?1 ORDER BY target LIMIT 1",
                [from],
                read,
            ),
        }
    }

    /// With a policy and states: is there one at this target? One seek saves looking at each row.
    fn may_match(&mut self, filter: &PlacementFilter, target: u32) -> Result<bool, StoreError> {
        let (Some(policy), false) = (&filter.policy, filter.states.is_empty()) else { return Ok(true) };
        for state in &filter.states {
            let found = first(
                &self.db,
                TABLE,
                "SELECT 1 FROM placements WHERE policy = ?1 AND target = ?2 AND state = ?3 LIMIT 1",
                params![policy, target, state.ordinal()],
                |_| Ok(()),
            )?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a page of one target and kind adds.
    fn page(
        &mut self,
        filter: &PlacementFilter,
        sql: &str,
        (target, kind, gk): (u32, i64, &GroupKind),
        cursor: Option<&ObjectKey>,
        limit: usize,
        found: &mut Vec<PlacementRow>,
    ) -> Result<(), StoreError> {
        if found.len() >= limit {
            return Ok(());
        }
        let Self { db, bodies, .. } = self;
        // No object has an empty name: everything comes after ("", "").
        let (namespace, name) = cursor.map_or(("", ""), |key| (&key.namespace, &key.name));
        let rest = sql_limit(limit - found.len());
        let source = filter.source.map(|source| source.0);
        let values: [&dyn ToSql; 7] = [&target, &kind, &namespace, &name, &rest, &filter.policy, &source];
        found.extend(query(db, TABLE, sql, params_from_iter(values), |row| {
            read(row, ClusterId(target), gk, bodies)
        })?);
        Ok(())
    }

    pub(super) fn placement_count(&mut self, filter: &PlacementFilter) -> Result<u64, StoreError> {
        let PlacementFilter { policy, target, source, gk, states: wanted, held } = filter;
        let kind = match gk {
            None => None,
            Some(gk) => match self.kinds.id(&self.db, gk)? {
                Some(kind) => Some(kind),
                None => return Ok(0),
            },
        };
        let mut sql = "SELECT count(*) FROM placements WHERE 1".to_owned();
        // Four parameters in every variant.
        for (condition, otherwise, present) in [
            (" AND policy = ?1", " AND ?1 IS NULL", policy.is_some()),
            (" AND target = ?2", " AND ?2 IS NULL", target.is_some()),
            (" AND source_cluster = ?3", " AND ?3 IS NULL", source.is_some()),
            (" AND kind = ?4", " AND ?4 IS NULL", kind.is_some()),
        ] {
            sql.push_str(if present { condition } else { otherwise });
        }
        sql.push_str(&states(wanted));
        sql.push_str(held_only(*held));
        let count = first(
            &self.db,
            TABLE,
            &sql,
            params![policy, target.map(|target| target.0), source.map(|source| source.0), kind],
            |row| row.u64(0),
        )?;
        Ok(count.unwrap_or(0))
    }

    pub(super) fn due(&mut self, now: Millis, limit: usize) -> Result<Vec<PlacementCursor>, StoreError> {
        let Self { db, kinds, .. } = self;
        query(
            db,
            TABLE,
            "SELECT target, kind, namespace, name FROM placements WHERE next_attempt <= ?1 \
             ORDER BY next_attempt, rowid LIMIT ?2",
            params![now, sql_limit(limit)],
            |row| {
                let gk = kinds.kind(db, TABLE, row.int(1)?)?;
                Ok((ClusterId(row.u32(0)?), ObjectKey::new(gk, row.text(2)?, row.text(3)?)))
            },
        )
    }

    pub(super) fn next_due(&mut self) -> Result<Option<Millis>, StoreError> {
        first(
            &self.db,
            TABLE,
            "SELECT next_attempt FROM placements WHERE next_attempt IS NOT NULL \
             ORDER BY next_attempt LIMIT 1",
            [],
            |row| row.int(0),
        )
    }

    pub(super) fn summary(&mut self, policy: Option<&str>) -> Result<Vec<SummaryRow>, StoreError> {
        let read = |row: &Columns<'_>| {
            Ok(SummaryRow {
                policy: row.string(0)?,
                target: ClusterId(row.u32(1)?),
                state: row.ordinal(2, &State::ALL)?,
                reason: row.string(3)?,
                count: row.u64(4)?,
                max_lag_ms: row.opt_int(5)?,
                oldest_since: row.int(6)?,
            })
        };
        match policy {
            Some(policy) => query(&self.db, TABLE, SUMMARY_OF_POLICY, [policy], read),
            None => query(&self.db, TABLE, SUMMARY, [], read),
        }
    }
}

pub(super) fn page_sql(filter: &PlacementFilter) -> String {
    let mut sql =
        select_placement!("WHERE target = ?1 AND kind = ?2 AND (namespace, name) > (?3, ?4)").to_owned();
    // Seven parameters in every variant.
    sql.push_str(if filter.policy.is_some() { " AND policy = ?6" } else { " AND ?6 IS NULL" });
    // `+`: not by the index on it, whose order is not that of keys.
    sql.push_str(if filter.source.is_some() { " AND +source_cluster = ?7" } else { " AND ?7 IS NULL" });
    sql.push_str(&states(&filter.states));
    sql.push_str(held_only(filter.held));
    sql.push_str(" ORDER BY namespace, name LIMIT ?5");
    sql
}
