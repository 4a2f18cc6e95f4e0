-- Version 5: what is known of a tombstone besides its object, so that it is found and kept for as long as it has to be.

ALTER TABLE tombstones ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';    -- JSON
ALTER TABLE tombstones ADD COLUMN owners TEXT NOT NULL DEFAULT '[]';    -- JSON: ownerReferences, the controller first
ALTER TABLE tombstones ADD COLUMN owner_uid TEXT;                       -- of the first of them
ALTER TABLE tombstones ADD COLUMN managers TEXT NOT NULL DEFAULT '[]';  -- JSON: names of field managers
ALTER TABLE tombstones ADD COLUMN deleter TEXT;                         -- user who asked for it
ALTER TABLE tombstones ADD COLUMN act INTEGER;                          -- what deleted several at once
ALTER TABLE tombstones ADD COLUMN held INTEGER NOT NULL DEFAULT 0;      -- a legal hold
ALTER TABLE tombstones ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;    -- a policy asks for encryption
ALTER TABLE tombstones ADD COLUMN size INTEGER NOT NULL DEFAULT 0;      -- bytes in the archive
ALTER TABLE tombstones ADD COLUMN final BLOB;                           -- RFC 6902 patch, in the format of bodies
CREATE INDEX tombstones_uid ON tombstones (uid, cluster);
CREATE INDEX tombstones_owner ON tombstones (owner_uid, cluster) WHERE owner_uid IS NOT NULL;
CREATE INDEX tombstones_act ON tombstones (act, deleted_at) WHERE act IS NOT NULL;
CREATE INDEX tombstones_deleter ON tombstones (deleter, deleted_at) WHERE deleter IS NOT NULL;

-- The state before deletionTimestamp of an object that lingers.
ALTER TABLE objects ADD COLUMN before BLOB;
-- 0: only the answer to our own write told of it, no watch yet.
ALTER TABLE objects ADD COLUMN told INTEGER NOT NULL DEFAULT 1;
CREATE INDEX objects_untold ON objects (watch) WHERE told = 0;
-- Pod Security labels of a Namespace, as JSON.
ALTER TABLE objects ADD COLUMN pod_security TEXT;

DROP VIEW tombstones_readable;
CREATE VIEW tombstones_readable AS
SELECT t.id, c.name AS cluster, k.kind AS kind, k.grp AS "group", t.namespace, t.name, t.uid,
  CASE t.cause WHEN 0 THEN 'Observed' WHEN 1 THEN 'Inferred' WHEN 2 THEN 'Lockstep'
    WHEN 3 THEN 'Rewound' WHEN 4 THEN 'ClusterRemoved' WHEN 5 THEN 'Restore' END AS cause,
  t.policy, t.deleter, t.act, t.held, t.deleted, datetime(t.deleted_at / 1000, 'unixepoch') AS deleted_at,
  datetime(t.known_until / 1000, 'unixepoch') AS known_until,
  datetime(t.last_seen / 1000, 'unixepoch') AS last_seen, t.size, t.path
FROM tombstones t LEFT JOIN clusters c ON c.id = t.cluster LEFT JOIN kinds k ON k.id = t.kind;

-- The key of the archive that a file is sealed under, by its id.
ALTER TABLE tombstones ADD COLUMN sealed_under TEXT;
CREATE INDEX tombstones_key ON tombstones (sealed_under, id) WHERE sealed_under IS NOT NULL;

-- A legal hold: why, who and when, as JSON.
ALTER TABLE tombstones ADD COLUMN hold TEXT;

-- What tells how a source ended is kept while a copy of it is there.
CREATE INDEX placements_source_uid ON placements (source_uid) WHERE source_uid IS NOT NULL;
-- What deleted several objects at once. A row alone is no group: it may have one member, or none.
CREATE TABLE acts (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  cluster    INTEGER NOT NULL,
  act        INTEGER NOT NULL,                -- 0 Namespace, 1 Definition, 2 Owner, 3 Lockstep
  kind       INTEGER,                         -- of the root, where there is one
  namespace  TEXT,
  name       TEXT,
  uid        TEXT,
  contents   INTEGER,                         -- the kind that a definition defined
  policy     TEXT,
  began      INTEGER,                         -- resourceVersions of a namespace or definition: its delete
  ended      INTEGER,                         -- had not begun before; it was gone by
  over       INTEGER NOT NULL DEFAULT 0,      -- the cluster was rewound since: nothing joins any more
  started_at INTEGER NOT NULL,
  last_at    INTEGER NOT NULL,
  members    INTEGER NOT NULL DEFAULT 0       -- tombstones of deletes that were carried out
) STRICT;
CREATE INDEX acts_root ON acts (cluster, uid) WHERE uid IS NOT NULL;
CREATE INDEX acts_namespace ON acts (cluster, name) WHERE act = 0;
CREATE INDEX acts_definition ON acts (cluster, contents) WHERE act = 1;
CREATE INDEX acts_policy ON acts (cluster, policy, last_at) WHERE act = 3;
CREATE INDEX acts_listed ON acts (last_at) WHERE members > 1;
CREATE INDEX acts_empty ON acts (last_at) WHERE members = 0;

-- The newest first, with what a listing asks of it: what it does not mean costs no look at the row.
DROP INDEX tombstones_time;
CREATE INDEX tombstones_time ON tombstones
  (deleted_at, id, deleted, cluster, kind, namespace, name, cause, policy);

-- What tombstones are found by: labels one by one, and words (names, labels, strings of what is not kept secret).
CREATE TABLE tombstone_labels (
  label     TEXT NOT NULL,
  tombstone INTEGER NOT NULL,
  value     TEXT NOT NULL,
  PRIMARY KEY (label, tombstone)
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_labels_value ON tombstone_labels (label, value, tombstone);
CREATE VIRTUAL TABLE tombstone_words USING fts5 (words, content = '', contentless_delete = 1);

-- When it ended, in resourceVersions of its cluster; none where nobody knows.
ALTER TABLE tombstones ADD COLUMN ended_from INTEGER;
ALTER TABLE tombstones ADD COLUMN ended_to INTEGER;
ALTER TABLE tombstones ADD COLUMN alive INTEGER NOT NULL DEFAULT 0;  -- its delete had not begun at this one
ALTER TABLE tombstones ADD COLUMN created INTEGER;                   -- metadata.creationTimestamp, ms
CREATE INDEX tombstones_in_namespace ON tombstones (cluster, namespace, ended_to) WHERE ended_to IS NOT NULL;
CREATE INDEX tombstones_of_kind ON tombstones (cluster, kind, ended_to) WHERE ended_to IS NOT NULL;
-- Who asked for deletes, as webhooks told it; kept for a day. The name is empty where a collection was meant, the uid
-- where it was not told.
CREATE TABLE deleters (
  cluster INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  uid TEXT NOT NULL,
  user TEXT NOT NULL,
  asked_at INTEGER NOT NULL,
  PRIMARY KEY (cluster, kind, namespace, name, uid, user, asked_at)
) WITHOUT ROWID;
CREATE INDEX deleters_age ON deleters (asked_at);

-- What people had restored.
CREATE TABLE restores (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  cluster INTEGER NOT NULL,            -- where to
  asked_by TEXT NOT NULL,              -- as the caller calls itself
  asked_at INTEGER NOT NULL,
  options TEXT NOT NULL,               -- JSON of engine::restore::Options
  ended_at INTEGER                     -- NULL: under way
) STRICT;
CREATE INDEX restores_under_way ON restores (id) WHERE ended_at IS NULL;

CREATE TABLE restore_items (
  restore INTEGER NOT NULL,
  position INTEGER NOT NULL,
  tombstone INTEGER NOT NULL,
  kind INTEGER NOT NULL,               -- what it becomes
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  dependency INTEGER NOT NULL,
  verdict INTEGER NOT NULL,            -- position in engine::restore::Verdict::ALL
  state INTEGER NOT NULL,              -- 0 planned, 1 done, 2 failed, 3 left
  message TEXT NOT NULL,
  replaced INTEGER,                    -- tombstone of what it replaced
  PRIMARY KEY (restore, position)
) STRICT, WITHOUT ROWID;
