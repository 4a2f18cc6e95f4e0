//! The small tables: `policies`, `policy_files`, `budgets`, `meta`.

use lockstep_engine::ClusterId;
use rusqlite::params;

use super::Inner;
use super::row::{execute, first, query};
use crate::store::{PolicyFileRow, PolicyRow, StoreError};

impl Inner {
    pub(super) fn policy_files(&mut self) -> Result<Vec<PolicyFileRow>, StoreError> {
        let sql = "SELECT path, text FROM policy_files ORDER BY path";
        query(&self.db, "policy_files", sql, [], |row| {
            Ok(PolicyFileRow { path: row.string(0)?, text: row.string(1)? })
        })
    }

    pub(super) fn put_policy_files(&mut self, files: &[PolicyFileRow]) -> Result<(), StoreError> {
        execute(&self.db, "DELETE FROM policy_files", [])?;
        for PolicyFileRow { path, text } in files {
            let sql = "INSERT INTO policy_files (path, text) VALUES (?1, ?2)";
            execute(&self.db, sql, params![path, text])?;
        }
        Ok(())
    }

    pub(super) fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        let sql = "SELECT name, digest, generation, planned, paused FROM policies ORDER BY name";
        query(&self.db, "policies", sql, [], |row| {
            Ok(PolicyRow {
                name: row.string(0)?,
                digest: row.array(1)?,
                generation: row.u64(2)?,
                planned: row.bool(3)?,
                paused: row.bool(4)?,
            })
        })
    }

    pub(super) fn put_policy(&mut self, row: &PolicyRow) -> Result<(), StoreError> {
        let PolicyRow { name, digest, generation, planned, paused } = row;
        execute(
            &self.db,
            "INSERT INTO policies (name, digest, generation, planned, paused) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (name) DO UPDATE SET digest = ?2, generation = ?3, planned = ?4, paused = ?5",
            params![name, &digest[..], generation.cast_signed(), planned, paused],
        )?;
        Ok(())
    }

    pub(super) fn delete_policy(&mut self, name: &str) -> Result<(), StoreError> {
        execute(&self.db, "DELETE FROM policies WHERE name = ?1", [name])?;
        Ok(())
    }

    pub(super) fn budgets(&mut self) -> Result<Vec<(String, ClusterId, String)>, StoreError> {
        let sql = "SELECT policy, target, budget FROM budgets ORDER BY policy, target";
        query(&self.db, "budgets", sql, [], |row| {
            Ok((row.string(0)?, ClusterId(row.u32(1)?), row.string(2)?))
        })
    }

    pub(super) fn put_budget(
        &mut self,
        policy: &str,
        target: ClusterId,
        budget: &str,
    ) -> Result<(), StoreError> {
        execute(
            &self.db,
            "INSERT INTO budgets (policy, target, budget) VALUES (?1, ?2, ?3) \
             ON CONFLICT (policy, target) DO UPDATE SET budget = ?3",
            params![policy, target.0, budget],
        )?;
        Ok(())
    }

    pub(super) fn meta(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        first(&self.db, "meta", "SELECT value FROM meta WHERE name = ?1", [name], |row| row.string(0))
    }

    pub(super) fn put_meta(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        execute(
            &self.db,
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            params![name, value],
        )?;
        Ok(())
    }
}
