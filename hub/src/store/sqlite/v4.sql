-- Version 4: objects that were there before lockstep, and were adopted.

-- None in rows of before this version: nothing was adopted then.
ALTER TABLE placements ADD COLUMN written_adopted INTEGER;

-- Fields that others took: JSON, none where there are none.
ALTER TABLE placements ADD COLUMN fields TEXT;
