//! Proves that damage to what stands around the records of a commit costs none of them, nor of any other commit.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::*;

const COMMITS: u64 = 9;
/// Of the first commit, so that bits of it can fall as well as rise.
const ORDER: u64 = 0x1234_5678;

fn item(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut item = vec![ITEM, 0, 0];
    item.extend_from_slice(&7_u64.to_le_bytes());
    item.extend_from_slice(&(key.len() as u16).to_le_bytes());
    item.extend_from_slice(&(value.len() as u32).to_le_bytes());
    item.extend_from_slice(&(value.len() as u32).to_le_bytes());
    [item.as_slice(), key, value].concat()
}

fn batch(number: u64) -> Vec<u8> {
    let mark = Mark { number, previous: number - 1, synced: number - 1 };
    let items = [item(format!("key {number}").as_bytes(), b"a value"), item(MARK, &mark.encode())].concat();
    let mut batch = vec![START];
    batch.extend_from_slice(&2_u32.to_le_bytes());
    batch.extend_from_slice(&(ORDER + number * 2).to_le_bytes());
    batch.extend_from_slice(&items);
    batch.push(END);
    batch.extend_from_slice(&xxh3_64(&items).to_le_bytes());
    batch.extend_from_slice(&TRAILER);
    batch
}

/// Two journals, and where each commit begins in its own.
fn journals_of(folder: &Path) -> Vec<(PathBuf, usize)> {
    let (mut places, mut files) = (Vec::new(), [Vec::new(), Vec::new()]);
    for number in 1..=COMMITS {
        let file = usize::from(number > COMMITS / 2);
        places.push((folder.join(format!("{file}.jnl")), files[file].len()));
        files[file].extend(batch(number));
    }
    for (number, mut bytes) in files.into_iter().enumerate() {
        bytes.resize(bytes.len() + 500, 0);
        std::fs::write(folder.join(format!("{number}.jnl")), bytes).unwrap();
    }
    places
}

/// The commits and keys that replay would find, after a look at their order.
fn replayed(folder: &Path) -> (Vec<u64>, usize) {
    let (mut numbers, mut order) = (Vec::new(), 0);
    for path in journals(folder).unwrap() {
        let mut scan = Scan::open(&path, order).unwrap();
        while let Some(mark) = scan.batch().unwrap() {
            numbers.extend(mark.map(|mark| mark.number));
        }
        assert!(scan.rest_is_empty().unwrap());
        order = scan.order;
    }
    (numbers, keys(folder).unwrap().len())
}

fn flip(path: &Path, at: usize, bit: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn any_bit_around_the_records_of_a_commit_costs_nothing() {
    let all: Vec<u64> = (1..=COMMITS).collect();
    let (mut refused, mut told_total) = (0, 0);
    for number in 0..COMMITS as usize {
        let tail = batch(number as u64 + 1).len() - 4;
        for bit in (0..BATCH_HEAD_BYTES * 8).chain(tail * 8..(tail + 4) * 8) {
            let folder = tempfile::tempdir().unwrap();
            let (path, at) = journals_of(folder.path()).swap_remove(number);
            flip(&path, at + bit / 8, bit % 8);
            let what = format!("bit {bit} of commit {}", number + 1);
            refused += u64::from(mend(folder.path(), Keep::All { synced: COMMITS }).is_err());
            let told = salvage(folder.path(), COMMITS).unwrap();
            told_total += told.len();
            assert_eq!(replayed(folder.path()), (all.clone(), COMMITS as usize + 1), "{what}: {told:?}");
            // Of two that do not fit together either may be the damaged one.
            let near = |told: &String| (number..number + 3).any(|near| told.contains(&format!("commit {near} ")));
            assert!(told.len() < 2 && told.iter().all(|told| near(told) || told.contains("in commit")), "{what}: {told:?}");
            mend(folder.path(), Keep::All { synced: COMMITS }).unwrap();
        }
    }
    assert!(refused > 500 && told_total as u64 >= refused, "{refused} refused, {told_total} told");
}

#[test]
fn two_damaged_orders_and_a_damaged_record_cost_that_record() {
    let folder = tempfile::tempdir().unwrap();
    let places = journals_of(folder.path());
    for (number, bit) in [(1, 50), (2, 3), (5, 40), (7, 9)] {
        flip(&places[number].0, places[number].1 + 5 + bit / 8, bit % 8);
    }
    // The length of a key; and the content of a record, which may still be told apart.
    flip(&places[6].0, places[6].1 + BATCH_HEAD_BYTES + 11, 6);
    flip(&places[3].0, places[3].1 + BATCH_HEAD_BYTES + 25, 6);
    assert!(mend(folder.path(), Keep::All { synced: COMMITS }).is_err());
    let told = salvage(folder.path(), COMMITS).unwrap();
    let (numbers, keys) = replayed(folder.path());
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 8, 9], "{told:?}");
    assert_eq!(keys, COMMITS as usize, "{told:?}");
    assert!(told.iter().any(|told| told.contains("in commit 7; 0 records of it can be told apart")), "{told:?}");
}

#[test]
fn an_end_that_nobody_was_told_of_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = journals_of(folder.path()).pop().unwrap();
    flip(&path, at + 30, 2);
    // The trailer of the one before.
    flip(&path, at - 2, 0);
    let told = salvage(folder.path(), COMMITS - 1).unwrap();
    assert!(told.len() == 2 && told[0].contains("in commit 8; all 2 records"), "{told:?}");
    assert!(told[1].contains("unfinished"), "{told:?}");
    assert_eq!(replayed(folder.path()).0, (1..COMMITS).collect::<Vec<_>>());
}
