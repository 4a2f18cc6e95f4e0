-- Schema of version 1. Never edited once released: later versions are steps of their own.

-- (group, kind), interned: rows carry the small integer.
CREATE TABLE kinds (
  id   INTEGER PRIMARY KEY,
  grp  TEXT NOT NULL,
  kind TEXT NOT NULL,
  UNIQUE (grp, kind)
) STRICT;

CREATE TABLE clusters (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  name            TEXT NOT NULL UNIQUE,
  uid             TEXT UNIQUE,
  token_hash      BLOB,
  instance        TEXT NOT NULL,
  committed       INTEGER NOT NULL,
  session         INTEGER NOT NULL,
  lease_counter   INTEGER NOT NULL,
  server_version  TEXT NOT NULL,
  agent_version   TEXT NOT NULL,
  accepts         TEXT NOT NULL,            -- JSON
  paused          INTEGER NOT NULL,
  connected_at    INTEGER,                  -- times are milliseconds since the epoch
  disconnected_at INTEGER,
  created_at      INTEGER NOT NULL
) STRICT;

-- Apart from clusters: that row is written with every batch, and this may be 100 KB.
CREATE TABLE served (
  cluster INTEGER PRIMARY KEY,
  served  BLOB NOT NULL                     -- JSON, in the format of bodies
) STRICT;

CREATE TABLE watches (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  cluster          INTEGER NOT NULL,
  kind             INTEGER NOT NULL,
  namespace        TEXT NOT NULL,           -- empty: all
  epoch            INTEGER NOT NULL,
  checkpoint       TEXT NOT NULL,
  interest         BLOB NOT NULL,
  api_version      TEXT NOT NULL,
  phase            INTEGER NOT NULL,        -- 0 Pending, 1 Listing, 2 Live, 3 Failing
  reason           TEXT NOT NULL,
  message          TEXT NOT NULL,
  since            INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  UNIQUE (cluster, kind, namespace)
) STRICT;

-- A rowid table: bodies of a kilobyte in the leaves of a WITHOUT ROWID table would leave it with a
-- fan-out of four.
CREATE TABLE objects (
  rowid              INTEGER PRIMARY KEY,
  cluster            INTEGER NOT NULL,
  kind               INTEGER NOT NULL,
  namespace          TEXT NOT NULL,
  name               TEXT NOT NULL,
  watch              INTEGER NOT NULL,
  uid                TEXT NOT NULL,
  resource_version   TEXT NOT NULL,
  deleting           INTEGER NOT NULL,
  observed_at        INTEGER NOT NULL,
  managed            INTEGER,               -- 0 Digest, 1 NoEntry, 2 OtherVersion
  owned              BLOB,
  marks              TEXT,                  -- JSON
  managers           TEXT,                  -- JSON
  managed_created_at INTEGER,
  body               BLOB,                  -- one byte of format; see body.rs
  UNIQUE (cluster, kind, namespace, name)
) STRICT;

CREATE TABLE placements (
  rowid              INTEGER PRIMARY KEY,
  target             INTEGER NOT NULL,
  kind               INTEGER NOT NULL,
  namespace          TEXT NOT NULL,
  name               TEXT NOT NULL,
  policy             TEXT NOT NULL,
  source_cluster     INTEGER,
  source_namespace   TEXT,
  source_name        TEXT,
  source_uid         TEXT,
  state              INTEGER NOT NULL,      -- engine::status::State
  reason             TEXT NOT NULL,
  message            TEXT NOT NULL,
  since              INTEGER NOT NULL,
  generation         INTEGER NOT NULL,
  attempts           INTEGER NOT NULL,
  next_attempt       INTEGER,
  synced_at          INTEGER,
  lag_ms             INTEGER,
  ending             INTEGER,               -- 0 SourceDeleted, 1 Unselected, 2 PolicyRemoved, 3 TargetRemoved
  delete_stage       INTEGER,               -- 0 Granted, 1 Archiving, 2 Archived
  delete_tombstone   INTEGER,
  delete_uid         TEXT,
  delete_version     TEXT,
  barred             BLOB,
  rivals             TEXT NOT NULL,         -- JSON
  written_rendered   BLOB,                  -- present: our record
  written_uid        TEXT,
  written_version    TEXT,
  written_owned      BLOB,
  written_api        TEXT,
  written_implicit   INTEGER,
  written_at         INTEGER,
  written_fields     BLOB,                  -- JSON, in the format of bodies
  UNIQUE (target, kind, namespace, name)
) STRICT;
CREATE INDEX placements_policy ON placements (policy, target, kind, namespace, name);
CREATE INDEX placements_source ON placements (source_cluster, target, kind) WHERE source_cluster IS NOT NULL;
CREATE INDEX placements_status ON placements (policy, target, state, reason, since, lag_ms);
CREATE INDEX placements_due ON placements (next_attempt) WHERE next_attempt IS NOT NULL;

CREATE TABLE tombstones (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  cluster          INTEGER NOT NULL,
  kind             INTEGER NOT NULL,
  namespace        TEXT NOT NULL,
  name             TEXT NOT NULL,
  uid              TEXT NOT NULL,
  resource_version TEXT NOT NULL,
  api_version      TEXT NOT NULL,
  cause            INTEGER NOT NULL,        -- 0 Observed, 1 Inferred, 2 Lockstep
  policy           TEXT,
  deleted_at       INTEGER NOT NULL,
  last_seen        INTEGER NOT NULL,
  deleted          INTEGER NOT NULL,
  path             TEXT,
  body             BLOB
) STRICT;
CREATE INDEX tombstones_time ON tombstones (deleted_at);
CREATE INDEX tombstones_cluster ON tombstones (cluster, deleted_at);
CREATE INDEX tombstones_name ON tombstones (name, namespace, kind, deleted_at);
CREATE INDEX tombstones_kind ON tombstones (kind, namespace, deleted_at);
CREATE INDEX tombstones_outbox ON tombstones (id) WHERE body IS NOT NULL;

CREATE TABLE policy_files (
  path TEXT PRIMARY KEY,
  text TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
  name       TEXT PRIMARY KEY,
  digest     BLOB NOT NULL,
  generation INTEGER NOT NULL,
  planned    INTEGER NOT NULL,
  paused     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets (
  policy TEXT NOT NULL,
  target INTEGER NOT NULL,
  budget TEXT NOT NULL,                     -- JSON
  PRIMARY KEY (policy, target)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- For people with sqlite3: SELECT * FROM placements_readable WHERE state <> 'InStep';
CREATE VIEW placements_readable AS
SELECT c.name AS target, k.kind AS kind, k.grp AS "group", p.namespace, p.name, p.policy,
  CASE p.state WHEN 0 THEN 'InStep' WHEN 1 THEN 'Pending' WHEN 2 THEN 'Held' WHEN 3 THEN 'Conflict'
    WHEN 4 THEN 'Failed' WHEN 5 THEN 'Blocked' WHEN 6 THEN 'Unknown' WHEN 7 THEN 'Paused'
    WHEN 8 THEN 'Orphaned' END AS state,
  p.reason, p.message, s.name AS source_cluster, p.source_namespace, p.source_name, p.attempts,
  datetime(p.since / 1000, 'unixepoch') AS since,
  datetime(p.next_attempt / 1000, 'unixepoch') AS next_attempt,
  datetime(p.synced_at / 1000, 'unixepoch') AS synced_at, p.lag_ms
FROM placements p LEFT JOIN clusters c ON c.id = p.target LEFT JOIN kinds k ON k.id = p.kind
  LEFT JOIN clusters s ON s.id = p.source_cluster;

CREATE VIEW objects_readable AS
SELECT c.name AS cluster, k.kind AS kind, k.grp AS "group", o.namespace, o.name, o.uid,
  o.resource_version, o.managed IS NOT NULL AS managed, o.deleting, o.body IS NOT NULL AS body_held,
  datetime(o.observed_at / 1000, 'unixepoch') AS observed_at
FROM objects o LEFT JOIN clusters c ON c.id = o.cluster LEFT JOIN kinds k ON k.id = o.kind;

CREATE VIEW tombstones_readable AS
SELECT t.id, c.name AS cluster, k.kind AS kind, k.grp AS "group", t.namespace, t.name, t.uid,
  CASE t.cause WHEN 0 THEN 'Observed' WHEN 1 THEN 'Inferred' WHEN 2 THEN 'Lockstep' END AS cause,
  t.policy, t.deleted, datetime(t.deleted_at / 1000, 'unixepoch') AS deleted_at,
  datetime(t.last_seen / 1000, 'unixepoch') AS last_seen, t.path
FROM tombstones t LEFT JOIN clusters c ON c.id = t.cluster LEFT JOIN kinds k ON k.id = t.kind;
