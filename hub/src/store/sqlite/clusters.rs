//! The tables `clusters` and `served`.

use bytes::Bytes;
use lockstep_engine::{ClusterId, ClusterName, Millis, Uid};
use rusqlite::params;

use super::Inner;
use super::row::{Columns, execute, first, json, query};
use crate::store::{ClusterRow, Rewound, StoreError};

const TABLE: &str = "clusters";
const SELECT: &str = "SELECT id, name, uid, token_hash, instance, committed, session, lease_counter, \
    server_version, agent_version, accepts, paused, connected_at, disconnected_at, created_at, rewound_at, rewound_how, served \
    FROM clusters LEFT JOIN served ON served.cluster = clusters.id ORDER BY id";
const UPSERT: &str = "INSERT INTO clusters (id, name, uid, token_hash, instance, committed, session, \
    lease_counter, server_version, agent_version, accepts, paused, connected_at, disconnected_at, \
    created_at, rewound_at, rewound_how) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
    ON CONFLICT (id) DO UPDATE SET name = ?2, uid = ?3, token_hash = ?4, instance = ?5, committed = ?6, \
    session = ?7, lease_counter = ?8, server_version = ?9, agent_version = ?10, accepts = ?11, \
    paused = ?12, connected_at = ?13, disconnected_at = ?14, created_at = ?15, \
    rewound_at = ?16, rewound_how = ?17";
/// `UPSERT` without the columns that have unique indices: the batch after batch case.
const ADVANCE: &str = "UPDATE clusters SET token_hash = ?4, instance = ?5, committed = ?6, \
    session = ?7, lease_counter = ?8, server_version = ?9, agent_version = ?10, accepts = ?11, \
    paused = ?12, connected_at = ?13, disconnected_at = ?14, created_at = ?15, \
    rewound_at = ?16, rewound_how = ?17 \
    WHERE id = ?1 AND name = ?2 AND uid IS ?3";

/// What goes with a cluster at once: tables, and their columns with its id.
const FORGOTTEN: [(&str, &str); 5] = [
    ("clusters", "id"),
    ("served", "cluster"),
    ("budgets", "target"),
    ("containers_gone", "cluster"),
    ("former_records", "target"),
];

fn read(row: &Columns<'_>) -> Result<(ClusterRow, Option<Vec<u8>>), StoreError> {
    let name = ClusterName::new(row.text(1)?).map_err(|e| row.bad(1, e.why))?;
    let cluster = ClusterRow {
        id: ClusterId(row.u32(0)?),
        name,
        uid: row.opt_text(2)?.map(Uid::new),
        token_hash: row.opt_array(3)?,
        instance: row.string(4)?,
        committed: row.u64(5)?,
        session: row.u64(6)?,
        lease_counter: row.u64(7)?,
        server_version: row.string(8)?,
        agent_version: row.string(9)?,
        accepts: row.json(10)?,
        served: Bytes::new(),
        paused: row.bool(11)?,
        connected_at: row.opt_int(12)?,
        disconnected_at: row.opt_int(13)?,
        created_at: row.int(14)?,
        rewound: match row.opt_int(15)? {
            Some(at) => Some(Rewound { at, how: row.string(16)? }),
            None => None,
        },
    };
    Ok((cluster, row.opt_blob(17)?.map(<[u8]>::to_vec)))
}

impl Inner {
    pub(super) fn clusters(&mut self) -> Result<Vec<ClusterRow>, StoreError> {
        let Self { db, bodies, .. } = self;
        let mut clusters = Vec::new();
        for (mut cluster, served) in query(db, TABLE, SELECT, [], read)? {
            if let Some(served) = served {
                cluster.served = bodies.unpack("served", &served)?;
            }
            clusters.push(cluster);
        }
        Ok(clusters)
    }

    pub(super) fn create_cluster(
        &mut self,
        name: &ClusterName,
        now: Millis,
    ) -> Result<ClusterRow, StoreError> {
        // AUTOINCREMENT: an id is never given out again, also not after its cluster was forgotten.
        let next = first(
            &self.db,
            TABLE,
            "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'clusters'), 0), \
             coalesce((SELECT max(id) FROM clusters), 0)) + 1",
            [],
            |row| row.u32(0),
        )?
        .unwrap_or(1);
        let row = ClusterRow {
            id: ClusterId(next),
            name: name.clone(),
            uid: None,
            token_hash: None,
            instance: String::new(),
            committed: 0,
            session: 0,
            lease_counter: 0,
            server_version: String::new(),
            agent_version: String::new(),
            accepts: Vec::new(),
            served: Bytes::new(),
            paused: false,
            connected_at: None,
            disconnected_at: None,
            created_at: now,
            rewound: None,
        };
        self.put_cluster(&row)?;
        Ok(row)
    }

    pub(super) fn put_cluster(&mut self, row: &ClusterRow) -> Result<(), StoreError> {
        let ClusterRow {
            id,
            name,
            uid,
            token_hash,
            instance,
            committed,
            session,
            lease_counter,
            server_version,
            agent_version,
            accepts,
            served,
            paused,
            connected_at,
            disconnected_at,
            created_at,
            rewound,
        } = row;
        let accepts = json(TABLE, accepts)?;
        for sql in [ADVANCE, UPSERT] {
            let changed = execute(
                &self.db,
                sql,
                params![
                    id.0,
                    name.as_str(),
                    uid.as_ref().map(Uid::as_str),
                    token_hash.as_ref().map(|hash| &hash[..]),
                    instance,
                    committed.cast_signed(),
                    session.cast_signed(),
                    lease_counter.cast_signed(),
                    server_version,
                    agent_version,
                    accepts,
                    paused,
                    connected_at,
                    disconnected_at,
                    created_at,
                    rewound.as_ref().map(|rewound| rewound.at),
                    rewound.as_ref().map(|rewound| &rewound.how),
                ],
            )?;
            if changed > 0 {
                break;
            }
        }
        self.put_served(*id, served)
    }

    pub(super) fn forget_cluster(&mut self, id: ClusterId) -> Result<(), StoreError> {
        for (table, column) in FORGOTTEN {
            execute(&self.db, &format!("DELETE FROM {table} WHERE {column} = ?1"), [id.0])?;
        }
        self.served.remove(&id.0);
        Ok(())
    }

    /// Writes it only where it changed. Remembering costs nothing: the caller holds the same bytes.
    fn put_served(&mut self, id: ClusterId, served: &Bytes) -> Result<(), StoreError> {
        if self.served.get(&id.0).is_some_and(|known| known == served) {
            return Ok(());
        }
        let packed = self.bodies.pack("served", served)?;
        execute(
            &self.db,
            "INSERT INTO served (cluster, served) VALUES (?1, ?2) \
             ON CONFLICT (cluster) DO UPDATE SET served = ?2",
            params![id.0, packed],
        )?;
        self.served.insert(id.0, served.clone());
        Ok(())
    }
}
