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
CREATE INDEX tombstones_act ON tombstones (act) WHERE act IS NOT NULL;
CREATE INDEX tombstones_deleter ON tombstones (deleter, deleted_at) WHERE deleter IS NOT NULL;

-- The state before deletionTimestamp of an object that lingers.
ALTER TABLE objects ADD COLUMN before BLOB;

DROP VIEW tombstones_readable;
CREATE VIEW tombstones_readable AS
SELECT t.id, c.name AS cluster, k.kind AS kind, k.grp AS "group", t.namespace, t.name, t.uid,
  CASE t.cause WHEN 0 THEN 'Observed' WHEN 1 THEN 'Inferred' WHEN 2 THEN 'Lockstep'
    WHEN 3 THEN 'Rewound' WHEN 4 THEN 'ClusterRemoved' END AS cause,
  t.policy, t.deleter, t.act, t.held, t.deleted, datetime(t.deleted_at / 1000, 'unixepoch') AS deleted_at,
  datetime(t.known_until / 1000, 'unixepoch') AS known_until,
  datetime(t.last_seen / 1000, 'unixepoch') AS last_seen, t.size, t.path
FROM tombstones t LEFT JOIN clusters c ON c.id = t.cluster LEFT JOIN kinds k ON k.id = t.kind;

-- The key of the archive that a file is sealed under, by its id.
ALTER TABLE tombstones ADD COLUMN sealed_under TEXT;
CREATE INDEX tombstones_key ON tombstones (sealed_under, id) WHERE sealed_under IS NOT NULL;

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
