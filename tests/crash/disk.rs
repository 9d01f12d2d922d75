//! Speaks to the file system of `scripts/lossy`, which forgets what was not synced when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

pub struct LossyDisk {
    /// Where it is mounted.
    pub folder: PathBuf,
    control: PathBuf,
}

impl LossyDisk {
    /// The one that the environment names.
    pub fn given() -> LossyDisk {
        let path =
            |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("set {name}: use scripts/powercut")));
        LossyDisk { folder: path("COREHUB_CRASH_DISK"), control: path("COREHUB_CRASH_DISK_CONTROL") }
    }

    /// Lets the disk hang at one of the next writes or syncs and waits for that, at most a moment: there may be none.
    pub fn freeze(&self, step: u32) {
        self.tell(&format!("freeze {step}"));
        let begun = Instant::now();
        while begun.elapsed() < MOMENT && self.tell("count")["frozen"] != true {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Gives an order and returns the disk's counters.
    pub fn tell(&self, order: &str) -> Value {
        let mut stream = UnixStream::connect(&self.control).expect("the disk listens");
        writeln!(stream, "{order}").expect("the disk takes orders");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the disk answers");
        let answer: Value = serde_json::from_str(&line).expect("the disk answers in JSON");
        assert!(answer.get("error").is_none(), "{order}: {answer}");
        answer
    }
}

const MOMENT: Duration = Duration::from_millis(500);
