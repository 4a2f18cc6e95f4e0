-- Version 3: what lockstep last wrote to copies that it has forgotten since.

-- A restore may bring such a copy back, and only this tells which of its fields were ours.
CREATE TABLE former_records (
  target       INTEGER NOT NULL,
  kind         INTEGER NOT NULL,
  namespace    TEXT NOT NULL,
  name         TEXT NOT NULL,
  uid          TEXT NOT NULL,
  version      TEXT NOT NULL,               -- the columns of placements that begin with written_
  rendered     BLOB NOT NULL,
  owned        BLOB,
  api          TEXT NOT NULL,
  fields       BLOB NOT NULL,
  written_at   INTEGER NOT NULL,
  forgotten_at INTEGER NOT NULL,
  UNIQUE (target, kind, namespace, name, uid)
) STRICT;
CREATE INDEX former_records_age ON former_records (forgotten_at);
