-- Version 2: rewinds, and what is known of the time before an inferred delete.

ALTER TABLE clusters ADD COLUMN rewound_at INTEGER;   -- a rewind was noticed then, and waits for a decision
ALTER TABLE clusters ADD COLUMN rewound_how TEXT;

ALTER TABLE watches ADD COLUMN rewound INTEGER NOT NULL DEFAULT 0; -- to be listed under that flag
ALTER TABLE watches ADD COLUMN live_at INTEGER;       -- when it was last known to be complete

-- Since when an object that was known before a rewind is in no list.
ALTER TABLE objects ADD COLUMN unseen INTEGER;
CREATE INDEX objects_unseen ON objects (cluster, kind, namespace, name) WHERE unseen IS NOT NULL;

-- The last time at which the object is known to have existed; the delete came after it.
ALTER TABLE tombstones ADD COLUMN known_until INTEGER;

-- When a namespace or a definition was last seen to go (or to be replaced, or to be deleted): what was
-- inside went with it, also where another one has its name by now.
CREATE TABLE containers_gone (
  cluster INTEGER NOT NULL,
  kind    INTEGER NOT NULL,
  name    TEXT NOT NULL,
  gone_at INTEGER NOT NULL,
  version TEXT NOT NULL,                    -- resourceVersion by which it was gone
  PRIMARY KEY (cluster, kind, name)
) STRICT, WITHOUT ROWID;

DROP VIEW objects_readable;
CREATE VIEW objects_readable AS
SELECT c.name AS cluster, k.kind AS kind, k.grp AS "group", o.namespace, o.name, o.uid,
  o.resource_version, o.managed IS NOT NULL AS managed, o.deleting, o.body IS NOT NULL AS body_held,
  datetime(o.observed_at / 1000, 'unixepoch') AS observed_at,
  datetime(o.unseen / 1000, 'unixepoch') AS unseen
FROM objects o LEFT JOIN clusters c ON c.id = o.cluster LEFT JOIN kinds k ON k.id = o.kind;

DROP VIEW tombstones_readable;
CREATE VIEW tombstones_readable AS
SELECT t.id, c.name AS cluster, k.kind AS kind, k.grp AS "group", t.namespace, t.name, t.uid,
  CASE t.cause WHEN 0 THEN 'Observed' WHEN 1 THEN 'Inferred' WHEN 2 THEN 'Lockstep'
    WHEN 3 THEN 'Rewound' END AS cause,
  t.policy, t.deleted, datetime(t.deleted_at / 1000, 'unixepoch') AS deleted_at,
  datetime(t.known_until / 1000, 'unixepoch') AS known_until,
  datetime(t.last_seen / 1000, 'unixepoch') AS last_seen, t.path
FROM tombstones t LEFT JOIN clusters c ON c.id = t.cluster LEFT JOIN kinds k ON k.id = t.kind;
