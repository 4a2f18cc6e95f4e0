-- Version 4: objects that were there before lockstep, and were adopted.

-- None in rows of before this version: nothing was adopted then.
ALTER TABLE placements ADD COLUMN written_adopted INTEGER;
