//! Owns making journals readable again that are damaged: every commit whose own checksum is right is kept, of any other what can
//! be told apart. Only while the database is closed, on the thread of the command that repairs.
//!
//! The order number of a batch is under no checksum, but replay depends on it: it skips what is not newer than the tables, and of
//! two values of a key the one with the higher number counts. So numbers that do not rise from batch to batch are put right.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::{BATCH_HEAD_BYTES, END, ITEM, JournalFault, Mark, START, TRAILER};
use super::{array, journals, lengths, read_batch, read_item};

/// Keeps of damaged journals every whole commit and, of one that is not, all that can still be told apart; whether each of its
/// records is what was written, their own checksums say. The files as they were stay beside them as `.jnl.damaged`. Returns what
/// was done. Commits may be missing between others afterwards: all is to be copied to a new database.
pub fn salvage(folder: &Path, acknowledged: u64) -> Result<Vec<String>, JournalFault> {
    let paths = journals(folder).map_err(|source| JournalFault::Io { path: folder.to_owned(), source })?;
    let mut batches = Vec::new();
    for (place, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path).map_err(|source| JournalFault::Io { path: path.clone(), source })?;
        split(&bytes, place, &mut batches);
    }
    let last = batches.iter().filter(|batch| batch.state != State::Broken).filter_map(|batch| batch.mark).map(|mark| mark.number);
    // Whoever was told of a commit knows of its number.
    if last.max() >= Some(acknowledged) && batches.last().is_some_and(|batch| batch.state == State::Broken) {
        batches.last_mut().into_iter().for_each(|batch| batch.state = State::Unfinished);
    }
    put_in_order(&mut batches);
    let mut told = Vec::new();
    for (place, path) in paths.iter().enumerate() {
        let before = told.len();
        let name = path.display();
        let own = batches.iter().enumerate().filter(|(_, batch)| batch.place == place);
        told.extend(own.filter_map(|(index, batch)| Some(format!("journal {name}: {}", batch.told(which(&batches, index))?))));
        if told.len() > before {
            let io = |source| JournalFault::Io { path: path.clone(), source };
            let bytes = std::fs::read(path).map_err(io)?;
            let mut kept = Vec::with_capacity(bytes.len());
            batches.iter().filter(|batch| batch.place == place).for_each(|batch| batch.write(&mut kept, &bytes));
            replace(path, &kept).map_err(io)?;
        }
    }
    Ok(told)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// Its items have the right checksum; only what stands before them, or the very end, is damaged.
    HeadBroken,
    Broken,
    /// Broken, and nobody was told of it.
    Unfinished,
}

/// A batch as it was found.
#[derive(Debug)]
struct Batch {
    /// Of its journal.
    place: usize,
    at: usize,
    state: State,
    /// None where it is not to be believed.
    order: Option<u64>,
    /// What it gets.
    given: u64,
    mark: Option<Mark>,
    count: u32,
    items: Range<usize>,
}

impl Batch {
    /// What was done about it; None: nothing had to be.
    fn told(&self, which: String) -> Option<String> {
        let Batch { at, count, .. } = *self;
        match self.state {
            State::Whole if self.order == Some(self.given) => None,
            State::Whole => Some(format!(
                "the order number of {which} at byte {at} does not fit those around it; all {count} records are kept"
            )),
            State::HeadBroken => Some(format!("damaged at byte {at}, in {which}; all {count} records of it are kept")),
            State::Broken => {
                Some(format!("damaged at byte {at}, in {which}; {count} records of it can be told apart, others are lost"))
            }
            State::Unfinished => Some(format!("an unfinished commit at byte {at} is left out")),
        }
    }

    fn write(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        if self.count == 0 || self.state == State::Unfinished {
            return;
        }
        let items = &bytes[self.items.clone()];
        out.push(START);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.given.to_le_bytes());
        out.extend_from_slice(items);
        out.push(END);
        out.extend_from_slice(&xxh3_64(items).to_le_bytes());
        out.extend_from_slice(&TRAILER);
    }
}

/// Names a batch by the commits that its own mark or those around it leave for it.
fn which(batches: &[Batch], index: usize) -> String {
    let number = |batch: &Batch| batch.mark.filter(|_| batch.state != State::Broken).map(|mark| mark.number);
    if let Some(number) = number(&batches[index]) {
        return format!("commit {number}");
    }
    let before = batches[..index].iter().rev().find_map(number).map_or(0, |number| number + 1);
    let behind = batches[index..].iter().find_map(number).map(|number| number.saturating_sub(1));
    match behind {
        Some(behind) if behind == before => format!("commit {before}"),
        Some(behind) if behind > before => format!("commits {before} to {behind}"),
        Some(_) => "a commit".to_owned(),
        None => format!("commit {before} or later"),
    }
}

/// Everything in a journal, batch by batch.
fn split(bytes: &[u8], place: usize, batches: &mut Vec<Batch>) {
    let (mut at, mut items) = (0, Vec::new());
    // Zeros are room that was made in advance.
    while bytes[at..].iter().any(|byte| *byte != 0) {
        items.clear();
        let begin = at + BATCH_HEAD_BYTES;
        if let Ok(batch) = read_batch(&mut &bytes[at..], &mut items, bytes.len() as u64) {
            let (end, count) = (at + batch.bytes as usize, u32::from_le_bytes(count_bytes(&bytes[at..])));
            let (order, mark, items) = (Some(batch.order), batch.mark, begin..begin + items.len());
            batches.push(Batch { place, at, state: State::Whole, order, given: 0, mark, count, items });
            at = end;
            continue;
        }
        if let Some((count, mark, end)) = headless(bytes, begin) {
            batches.push(Batch { place, at, state: State::HeadBroken, order: None, given: 0, mark, count, items: begin..end });
            at = (end + BATCH_TAIL_BYTES).min(bytes.len());
            continue;
        }
        let next = next_batch(bytes, at + 1);
        let end = next.unwrap_or(bytes.len());
        let (count, items_bytes) = loose_items(bytes.get(begin..end).unwrap_or_default());
        let items = begin..begin + items_bytes;
        batches.push(Batch { place, at, state: State::Broken, order: None, given: 0, mark: None, count, items });
        // Where its end can be seen, the next one begins, be that whole or not.
        let end = begin + items_bytes;
        match (count > 0 && bytes.get(end) == Some(&END), next) {
            (true, _) => at = (end + BATCH_TAIL_BYTES).min(bytes.len()),
            (false, Some(next)) => at = next,
            (false, None) => break,
        }
    }
}

fn count_bytes(head: &[u8]) -> [u8; 4] {
    head.get(1..5).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

/// The items from `begin` on, when what stands behind them has their checksum: how many, their mark, their end.
fn headless(bytes: &[u8], begin: usize) -> Option<(u32, Option<Mark>, usize)> {
    let mut rest = bytes.get(begin..)?;
    let (mut items, mut count, mut mark) = (Vec::new(), 0, None);
    while rest.first().is_some_and(|tag| *tag != END) {
        mark = read_item(&mut rest, &mut items, bytes.len() as u64).ok()?.or(mark);
        count += 1;
    }
    let [_, checksum @ ..] = array::<9>(&mut rest).ok()?;
    (count > 0 && u64::from_le_bytes(checksum) == xxh3_64(&items)).then_some((count, mark, begin + items.len()))
}

/// Where the next whole batch begins.
fn next_batch(bytes: &[u8], from: usize) -> Option<usize> {
    let mut items = Vec::new();
    (from..bytes.len()).filter(|at| bytes[*at] == START).find(|at| {
        items.clear();
        read_batch(&mut &bytes[*at..], &mut items, bytes.len() as u64).is_ok()
    })
}

/// The items at the beginning of a broken batch, as long as they look like some: how many, and their bytes.
fn loose_items(body: &[u8]) -> (u32, usize) {
    let (mut count, mut at, mut items) = (0, 0, Vec::new());
    while body.get(at) == Some(&ITEM) {
        items.clear();
        if read_item(&mut &body[at..], &mut items, body.len() as u64).is_err() || !plausible(&items) {
            break;
        }
        (count, at) = (count + 1, at + items.len());
    }
    (count, at)
}

/// The database ends at, or dies of, an item that it cannot decode.
fn plausible(item: &[u8]) -> bool {
    let head = &item[1..];
    let (key_bytes, stored_bytes) = lengths(head);
    let value_bytes = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
    let value = &item[item.len() - stored_bytes..];
    // A kind of value, and a keyspace: there are few.
    let known = head[0] < 3 && head[3..10] == [0; 7] && key_bytes > 0;
    known
        && match head[1] {
            0 => value_bytes == stored_bytes,
            1 if value_bytes <= VALUE_BYTES_MAX => {
                let mut room = vec![0; value_bytes];
                lz4_flex::block::decompress_into(value, &mut room).is_ok_and(|bytes| bytes == value_bytes)
            }
            _ => false,
        }
}

/// Gives every batch a number that is higher than those before it and lower than those behind it. Most are right: those of the
/// longest sequence that rises are kept, but for ends that are too far from their neighbour to be.
fn put_in_order(batches: &mut [Batch]) {
    let mut orders: Vec<Option<u64>> = batches.iter().map(|batch| batch.order.filter(|order| *order < ORDER_END)).collect();
    let trusted = loop {
        let trusted = rising(&orders);
        let leaps = |one: usize, next: usize| orders[next] > orders[one].map(|order| order + LEAP_MAX);
        let odd = match trusted[..] {
            [first, second, ..] if leaps(first, second) => first,
            [.., before, last] if leaps(before, last) => last,
            _ => break trusted,
        };
        // Without it another sequence may be longer.
        orders[odd] = None;
    };
    let mut is_trusted = vec![false; batches.len()];
    trusted.iter().for_each(|index| is_trusted[*index] = true);
    let mut next = None;
    for (batch, trusted) in batches.iter_mut().zip(&is_trusted).rev() {
        batch.given = match (batch.order, next) {
            (Some(order), _) if *trusted => order,
            // Just before the next one: never so low that replay takes it for something the tables have.
            (_, Some(next)) => u64::saturating_sub(next, 1),
            (_, None) => 0,
        };
        next = (*trusted || next.is_some()).then_some(batch.given);
    }
    // Replay skips what the tables may have. With nothing to go by that is not known: then all are higher than anything.
    let mut least = if trusted.is_empty() { ORDER_END.saturating_sub(batches.len() as u64 + 1) } else { 0 };
    for batch in batches {
        batch.given = batch.given.max(least);
        least = batch.given + 1;
    }
}

/// Which batches make the longest sequence of rising order numbers; of several the highest one, since a number that is too high
/// does no harm and one that is too low is skipped by replay.
fn rising(orders: &[Option<u64>]) -> Vec<usize> {
    // From the end: of sequences of each length, the beginning of the one that begins highest; and what comes after each batch.
    let (mut begins, mut after) = (Vec::<usize>::new(), vec![None; orders.len()]);
    for (index, own) in orders.iter().enumerate().rev().filter(|(_, own)| own.is_some()) {
        let length = begins.partition_point(|begin| orders[*begin] > *own);
        after[index] = length.checked_sub(1).map(|shorter| begins[shorter]);
        if length < begins.len() { begins[length] = index } else { begins.push(index) }
    }
    std::iter::successors(begins.last().copied(), |index| after[*index]).collect()
}

/// Writes a journal anew and keeps the old one under another name.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("jnl.new");
    std::fs::write(&fresh, bytes)?;
    File::open(&fresh)?.sync_all()?;
    std::fs::copy(path, path.with_extension("jnl.damaged"))?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Of a batch, behind its items: a tag, their checksum, a trailer.
const BATCH_TAIL_BYTES: usize = 13;
/// Between two commits the database may number something else, but not so much.
const LEAP_MAX: u64 = 1 << 20;
/// Numbers from here on the database keeps for itself.
const ORDER_END: u64 = 1 << 62;
/// Longer than any record.
const VALUE_BYTES_MAX: usize = 1 << 30;
