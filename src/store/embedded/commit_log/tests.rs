//! Proves that the log gives back what was written, whatever tears or harms it, and tells a torn end from damage.

use proptest::collection::vec;
use proptest::prelude::any;

use super::frame::{FRAME_ALIGN, read_frame, records};
use super::*;

type Rows = Vec<(Space, Slice, Option<Slice>)>;

/// The rows of a commit: some long, some deleted.
fn rows(number: u64) -> Rows {
    let key = |part: u64| Slice::from(format!("key {number} {part}").into_bytes());
    let value = |bytes: usize| Some(Slice::from(vec![number as u8; bytes]));
    vec![
        (Space::Messages, key(1), value(100 + (number as usize * 37) % 900)),
        (Space::Rows, key(2), None),
        (Space::Changes, key(3), value(0)),
    ]
}

fn write(log: &mut CommitLog, rows: &Rows, checkpoint: u64, sync: bool) -> io::Result<u64> {
    let records = rows.iter().map(|(space, key, value)| (*space, key, value.as_ref()));
    log.write(records, Some(b"list"), checkpoint, sync)
}

/// A log with commits up to `last`, as a kill leaves it.
fn filled(folder: &Path, last: u64, checkpoint: impl Fn(u64) -> u64) -> CommitLog {
    let mut log = CommitLog::begin(folder, &find(folder, 0, None).unwrap(), 0).unwrap();
    for number in 1..=last {
        assert_eq!(write(&mut log, &rows(number), checkpoint(number), true).unwrap(), number);
        assert_eq!(log.synced(), number);
    }
    log
}

/// What a start would bring to the tables.
fn replayed(found: &Found) -> Vec<u64> {
    let mut numbers = Vec::new();
    found
        .replay(|number, found| -> Result<(), CommitLogFault> {
            let mut wanted: Vec<Record> = rows(number)
                .into_iter()
                .map(|(space, key, value)| match value {
                    Some(value) => Record::Put(space, key, value),
                    None => Record::Delete(space, key),
                })
                .collect();
            wanted.push(Record::Changes(Slice::from(b"list")));
            assert_eq!(found, wanted, "commit {number}");
            numbers.push(number);
            Ok(())
        })
        .unwrap();
    numbers
}

fn newest(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| SegmentHead::decode(&std::fs::read(path).unwrap()).unwrap().sequence).unwrap()
}

#[test]
fn what_was_written_comes_back_through_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(filled(&log, 1_000, |_| 0));
    let found = find(&log, 1_000, None).unwrap();
    assert!(found.files().len() > 4, "{} segments", found.files().len());
    assert_eq!((found.checkpoint, found.end), (0, 1_000));
    assert_eq!(replayed(&found), (1..=1_000).collect::<Vec<_>>());
    // Once the tables have them they are gone, and their files are used again.
    let mut next = CommitLog::begin(&log, &found, 1_000).unwrap();
    assert_eq!(write(&mut next, &rows(1_001), 1_000, true).unwrap(), 1_001);
    let found = find(&log, 1_001, None).unwrap();
    assert_eq!((found.checkpoint, found.end, replayed(&found)), (1_000, 1_001, vec![1_001]));
}

#[test]
fn segments_are_used_again_as_the_tables_follow() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(filled(&log, 3_000, |number| number.saturating_sub(100)));
    let found = find(&log, 3_000, None).unwrap();
    assert!(found.files().len() <= 4, "{} files", found.files().len());
    assert_eq!((found.checkpoint, found.end), (2_900, 3_000));
    assert_eq!(replayed(&found), (2_901..=3_000).collect::<Vec<_>>());
}

#[test]
fn a_commit_that_failed_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = filled(&path, 5, |_| 0);
    log.fails = true;
    assert!(write(&mut log, &rows(6), 0, true).is_err());
    drop(log);
    let found = find(&path, 5, Some(5)).unwrap();
    assert_eq!((found.end, replayed(&found)), (5, vec![1, 2, 3, 4, 5]));
    let mut log = CommitLog::begin(&path, &found, 5).unwrap();
    let other = vec![(Space::Meta, Slice::from(b"another"), None)];
    assert_eq!(write(&mut log, &other, 5, true).unwrap(), 6);
    let found = find(&path, 6, None).unwrap();
    let mut seen = Vec::new();
    found
        .replay(|number, records| -> Result<(), CommitLogFault> {
            seen.push((number, records.len()));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(6, 2)]);
}

/// Whatever is torn off or flipped: what is given back is what was written, in order, without a gap; and when something is
/// missing that was acknowledged, as far as that can be known, it is a fault.
#[test]
fn torn_ends_are_cut_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(filled(&log, 40, |_| 0));
    let path = newest(&log);
    let whole = std::fs::read(&path).unwrap();
    let (mut cut, mut refused) = (0, 0);
    for at in (FRAMES_AT..whole.len()).step_by(101) {
        for torn in [false, true] {
            let mut bytes = whole.clone();
            if torn {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x10;
            }
            std::fs::write(&path, &bytes).unwrap();
            for acknowledged in [0, 20, 40] {
                match find(&log, acknowledged, None) {
                    Ok(found) => {
                        cut += 1;
                        assert!(found.end >= acknowledged);
                        // Each frame says that the one before it was on disk.
                        assert!(torn || found.end >= 39, "{} at {at}", found.end);
                        assert_eq!(replayed(&found), (1..=found.end).collect::<Vec<_>>());
                    }
                    Err(fault) => {
                        refused += 1;
                        assert!(fault.to_string().contains("acknowledged"), "{fault}");
                    }
                }
            }
        }
    }
    assert!(cut > 20 && refused > 20, "{cut} {refused}");
}

#[test]
fn either_copy_of_a_head_is_enough_and_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(filled(&log, 9, |_| 0));
    let path = newest(&log);
    let whole = std::fs::read(&path).unwrap();
    for place in (0..FRAMES_AT).step_by(7) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(find(&log, 9, None).unwrap().end, 9, "byte {place}");
    }
    let mut bytes = whole;
    bytes[3] ^= 1;
    bytes[2_050] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(find(&log, 0, None).is_err());
    let (found, told) = salvage(&log, 9).unwrap();
    assert!(replayed(&found).is_empty() && told.len() == 1, "{told:?}");
    assert!(find(&log, 9, None).is_err(), "as long as nothing is safe elsewhere");
    found.put_aside(&log).unwrap();
    drop(CommitLog::begin(&log, &found, 9).unwrap());
    assert_eq!(find(&log, 9, None).unwrap().end, 9);
}

#[test]
fn a_salvage_keeps_all_but_what_was_hit() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    drop(filled(&log, 40, |_| 0));
    let path = newest(&log);
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (1..=3).map(|part| FRAMES_AT + (bytes.len() - FRAMES_AT) * part / 4).collect();
    places.iter().for_each(|at| bytes[*at] ^= 0x20);
    std::fs::write(&path, &bytes).unwrap();
    assert!(find(&log, 40, None).is_err());
    let (found, told) = salvage(&log, 40).unwrap();
    let mut numbers = Vec::new();
    found
        .replay(|number, records| -> Result<(), CommitLogFault> {
            // Of one that was hit its records can still be told apart: a value has checksums of its own.
            assert!(records.len() >= 2, "commit {number}: {records:?}");
            numbers.push(number);
            Ok(())
        })
        .unwrap();
    assert_eq!((numbers, told.len()), ((1..=40).collect::<Vec<_>>(), 3), "{told:?}");
    assert!(path.with_extension("log.damaged").exists());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), salt in 0_u64..3) {
        let _ = SegmentHead::decode(&bytes);
        if let Some((head, found)) = read_frame(&bytes, salt) {
            assert_eq!(head.bytes, found.len());
        }
        let (found, _) = records(&bytes);
        assert!(found.iter().map(frame::record_bytes).sum::<usize>() <= bytes.len());
    }

    #[test]
    fn what_was_framed_is_read(
        list in vec((0_usize..14, vec(0_u8..9, 0..40), proptest::option::of(0_usize..500)), 0..20),
        salt in 0_u64..5,
    ) {
        let mut writer = FrameWriter::default();
        writer.begin();
        for (space, key, value) in &list {
            writer.record(Space::ALL[*space], key, value.map(|bytes| vec![7; bytes]).as_deref());
        }
        let head = FrameHead { kind: Kind::Commit, number: 5, synced: 4, checkpoint: 3, bytes: 0 };
        let bytes = writer.end(&head, salt).to_vec();
        assert_eq!(bytes.len() % FRAME_ALIGN, 0);
        let (read, body) = read_frame(&bytes, salt).unwrap();
        assert_eq!(FrameHead { bytes: 0, ..read }, head);
        let (found, is_whole) = records(body);
        assert!(is_whole && found.len() == list.len());
        assert!(read_frame(&bytes, salt + 1).is_none(), "another segment's frame");
    }
}

#[test]
fn a_segment_is_made_before_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = filled(&path, 1, |_| 0);
    // It grows by whole pieces, so that most writes find room.
    let length = log.file().metadata().unwrap().len();
    assert_eq!((length % (8 << 10), length >= log.active.at), (0, true));
    let (mut number, mut waited) = (1, 0);
    while log.free.is_empty() {
        number += 1;
        assert_eq!(write(&mut log, &rows(number), 0, true).unwrap(), number);
        if let Some(spare) = log.spare.take_if(|_| waited == 0) {
            waited = number;
            let made = spare.end().expect("the disk has room");
            assert_eq!(std::fs::metadata(super::path(&path, made)).unwrap().len(), SEGMENT_BYTES);
            log.free.push(made);
        }
    }
    assert!(waited > 0 && log.older.is_empty(), "it was there before the first segment was full");
    let (made, at) = (log.free[0], log.active.number);
    while log.active.number == at {
        number += 1;
        assert_eq!(write(&mut log, &rows(number), 0, true).unwrap(), number);
    }
    assert_eq!(log.active.number, made);
    // What was made for later and never used is no part of the log, and is used after the next start.
    while log.free.is_empty() {
        number += 1;
        assert_eq!(write(&mut log, &rows(number), 0, true).unwrap(), number);
        log.free.extend(log.spare.take().and_then(Spare::end));
    }
    let unused = log.free[0];
    drop(log);
    let found = find(&path, number, None).unwrap();
    assert_eq!((found.checkpoint, found.end, replayed(&found).len() as u64), (0, number, number));
    assert!(found.free().contains(&unused), "{unused} of {:?}", found.free());
    let log = CommitLog::begin(&path, &found, number).unwrap();
    assert_eq!(log.active.number, unused);
}

#[test]
fn a_spare_that_could_not_be_made_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = filled(&path, 1, |_| 0);
    // Its name is taken by something that cannot be written to.
    let next = log.next_file;
    std::fs::create_dir(unfinished(&path, next)).unwrap();
    for number in 2..=1_000 {
        assert_eq!(write(&mut log, &rows(number), 0, true).unwrap(), number);
    }
    drop(log);
    let found = find(&path, 1_000, None).unwrap();
    assert!(found.files().len() > 4 && !found.files().contains(&next), "{:?}", found.files());
    assert_eq!(replayed(&found), (1..=1_000).collect::<Vec<_>>());
}

#[test]
fn a_log_begun_anew_meets_no_spare_in_the_making() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = filled(&path, 1, |_| 0);
    let mut number = 1;
    for round in 0..100 {
        log.settle();
        log.spare = Spare::begin(&path, log.next_file);
        std::thread::sleep(std::time::Duration::from_micros(round * 20));
        // As after a fault: the one before is still there, but writes nothing any more.
        log.settle();
        let found = find(&path, number, None).unwrap();
        let mut next = CommitLog::begin(&path, &found, number).unwrap();
        for _ in 0..3 {
            number += 1;
            assert_eq!(write(&mut next, &rows(number), number - 2, true).unwrap(), number);
        }
        log = next;
        let found = find(&path, number, None).unwrap();
        assert_eq!((found.end, replayed(&found)), (number, vec![number - 1, number]), "round {round}");
        let unfinished = std::fs::read_dir(&path)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == UNFINISHED));
        assert_eq!(unfinished.count(), 0, "round {round}");
    }
}

#[test]
fn damage_is_not_blamed_on_a_spare() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = filled(&path, 3, |_| 0);
    let active = super::path(&path, log.active.number);
    let made = Spare::begin(&path, log.next_file).and_then(Spare::end).unwrap();
    drop(log);
    std::fs::File::options().write(true).open(&active).unwrap().set_len(FRAMES_AT as u64).unwrap();
    assert!(matches!(find(&path, 3, None), Err(CommitLogFault::EndsEarly { path, .. }) if path == active));
    // Nor is it a log of its own, which would begin with nothing.
    std::fs::remove_file(&active).unwrap();
    assert!(!salvage(&path, 3).unwrap().0.exists());
    assert!(find(&path, 0, None).unwrap().free().contains(&made));
}
