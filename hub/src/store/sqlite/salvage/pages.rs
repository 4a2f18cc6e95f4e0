//! Rows out of the bare pages of a file, where the way to them is torn: every leaf of a table holds
//! whole rows, whatever became of the pages above it. <https://sqlite.org/fileformat2.html>
//!
//! A page that is no longer in use may hold what a row once was. So what comes from here is only taken
//! where nothing else is known of a row.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rusqlite::types::Value;

use super::super::damage::beside;

/// What SQLite makes where nothing else is asked for; the header may be torn.
const PAGE: usize = 4096;
/// First byte of a leaf of a table.
const TABLE_LEAF: u8 = 0x0d;
/// Header of a leaf.
const LEAF_HEADER: usize = 8;
/// Header of the log, and of each page in it.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: usize = 24;
/// No row is longer: twice the largest body.
const MAX_ROW: usize = 128 << 20;

/// The pages of a database with its log over them.
pub(super) struct Pages {
    file: File,
    count: u32,
    log: Option<(File, BTreeMap<u32, u64>)>,
}

impl Pages {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let file = File::open(database)?;
        let count = u32::try_from(file.metadata()?.len() / PAGE as u64).unwrap_or(u32::MAX);
        let log = match File::open(beside(database, "-wal")) {
            Ok(mut log) => {
                let at = frames(&mut log)?;
                Some((log, at))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, count, log })
    }

    /// Every row of every leaf of a table: its number, and its columns.
    pub(super) fn rows<E>(
        &mut self,
        mut take: impl FnMut(i64, Vec<Value>) -> Result<(), E>,
    ) -> Result<(), E> {
        let logged = self.log.iter().flat_map(|(_, at)| at.keys()).max().copied().unwrap_or(0);
        for number in 1..=self.count.max(logged) {
            let Some(page) = self.read(number) else { continue };
            // The first page begins with the header of the file, and is that of the schema.
            if page.first() != Some(&TABLE_LEAF) || number == 1 {
                continue;
            }
            let cells = usize::from(u16_at(&page, 3).unwrap_or(0));
            for n in 0..cells {
                let cell = u16_at(&page, LEAF_HEADER + 2 * n).map(usize::from);
                if let Some((id, row)) = cell.and_then(|at| self.row(&page, at)) {
                    take(id, row)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; PAGE];
        let logged = self.log.as_mut().and_then(|(log, at)| Some((log, *at.get(&number)?)));
        let (file, at) = match logged {
            Some((log, at)) => (log, at),
            None => (&mut self.file, u64::from(number.checked_sub(1)?) * PAGE as u64),
        };
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut page).ok()?;
        Some(page)
    }

    /// The cell at a place of a leaf, with what overflows onto other pages.
    fn row(&mut self, page: &[u8], at: usize) -> Option<(i64, Vec<Value>)> {
        let mut cell = page.get(at..)?;
        let length = usize::try_from(varint(&mut cell)?).ok().filter(|length| *length <= MAX_ROW)?;
        let id = varint(&mut cell)?;
        // How much stays in the leaf: section 1.6 of the file format, without reserved bytes.
        let (most, least) = (PAGE - 35, (PAGE - 12) * 32 / 255 - 23);
        if length <= most {
            return Some((id, record(cell.get(..length)?)?));
        }
        let rest = least + (length - least) % (PAGE - 4);
        let local = if rest <= most { rest } else { least };
        let mut payload = cell.get(..local)?.to_vec();
        let mut next = u32_at(cell, local)?;
        while payload.len() < length {
            let page = self.read(next)?;
            next = u32_at(&page, 0)?;
            let wanted = (length - payload.len()).min(PAGE - 4);
            payload.extend_from_slice(page.get(4..4 + wanted)?);
        }
        // The last page of a chain names none: else the chain is not what it was.
        if next != 0 {
            return None;
        }
        Some((id, record(&payload)?))
    }
}

/// Where the last version of each page stands in a log.
fn frames(log: &mut File) -> io::Result<BTreeMap<u32, u64>> {
    let mut at = BTreeMap::new();
    let mut header = [0; LOG_HEADER as usize];
    if log.read_exact(&mut header).is_err() {
        return Ok(at);
    }
    let mut place = LOG_HEADER;
    let mut frame = [0; FRAME_HEADER];
    // Frames of the time before carry another salt.
    while log.seek(SeekFrom::Start(place)).is_ok()
        && log.read_exact(&mut frame).is_ok()
        && frame[8..16] == header[16..24]
    {
        if let Some(number) = u32_at(&frame, 0) {
            at.insert(number, place + FRAME_HEADER as u64);
        }
        place += (FRAME_HEADER + PAGE) as u64;
    }
    Ok(at)
}

/// The columns of a record.
fn record(bytes: &[u8]) -> Option<Vec<Value>> {
    let mut head = bytes;
    let length = usize::try_from(varint(&mut head)?).ok()?;
    let mut types = bytes.get(bytes.len() - head.len()..length)?;
    let mut body = bytes.get(length..)?;
    let mut row = Vec::new();
    while !types.is_empty() {
        let kind = varint(&mut types)?;
        row.push(value(kind, &mut body)?);
    }
    Some(row)
}

fn value(kind: i64, body: &mut &[u8]) -> Option<Value> {
    let mut take = |length: usize| -> Option<&[u8]> {
        let (taken, rest) = body.split_at_checked(length)?;
        *body = rest;
        Some(taken)
    };
    let integer = |bytes: &[u8]| {
        let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
        bytes.iter().fold(if negative { -1 } else { 0 }, |sum: i64, byte| sum << 8 | i64::from(*byte))
    };
    Some(match kind {
        0 => Value::Null,
        1..=4 => Value::Integer(integer(take(usize::try_from(kind).ok()?)?)),
        5 => Value::Integer(integer(take(6)?)),
        6 => Value::Integer(integer(take(8)?)),
        // 8 and 9 are the numbers 0 and 1. No table of ours holds a fraction.
        8 | 9 => Value::Integer(kind - 8),
        12.. if kind % 2 == 0 => Value::Blob(take(usize::try_from((kind - 12) / 2).ok()?)?.to_vec()),
        13.. => Value::Text(String::from_utf8(take(usize::try_from((kind - 13) / 2).ok()?)?.to_vec()).ok()?),
        _ => return None,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for n in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if n == 8 {
            return Some((value << 8 | u64::from(*byte)).cast_signed());
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value.cast_signed())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
