//! `bench history`: pages of one very long conversation, from its end and from its middle, and search in it. The conversation
//! is written through the store before the server starts.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::child::SpawnedServer;
use super::super::error::{BenchError, BenchResult};
use super::super::fill::{FilledFolder, Filler, user};
use super::super::options::HistoryOptions;
use super::super::report::Report;
use super::super::solo::{Caller, Manner, Solo};
use super::super::stage::{Spawning, progress, spawn};
use super::super::tally::{latencies, quantile, record};
use super::super::token::TokenMaker;
use crate::types::ConversationId;

/// Runs it.
pub fn run(options: &HistoryOptions) -> BenchResult<Report> {
    if options.messages < 4 * u64::from(options.limit) {
        return Err(BenchError::Usage("--messages must be several pages".to_owned()));
    }
    let common = &options.common;
    let line = progress(common);
    line.set_message(format!("filling a folder with {} messages", options.messages));
    let mark = format!("history, {} messages", options.messages);
    let folder = FilledFolder::make(common, &mark, |filler| fill(filler, options))?;
    let cpus = common.server_cpu.clone().unwrap_or_default();
    let order = Spawning { clients: 16, settings: Vec::new(), store: "embedded", data: Some(&folder.path) };
    let server = spawn(common, order, &cpus)?;
    let caller = Caller { address: server.address, path: common.path.clone(), tokens: TokenMaker::new(server.secret.clone()) };
    let mut reader = Solo::connect(&caller, READER, Manner::default())?;
    // What was never delivered is pushed first; it is not what is measured.
    line.set_message("taking in what was undelivered");
    reader.wait("sync_done", |seen, _| matches!(seen, super::super::envelope::Seen::Synced))?;
    let mut report = Report::new("history", setting(options, &folder));
    pages(&mut report, &mut reader, options, &line)?;
    line.set_message("waiting for the search index");
    report.figure("indexed_s", "search index up to date, after pages were read", "s", vec![indexed(&server)?]);
    searches(&mut report, &mut reader, options, &line)?;
    report.figure(
        "resident_mib",
        "server, resident at the end",
        "MiB",
        vec![server.process.memory()?.resident as f64 / MEBIBYTE],
    );
    line.finish_and_clear();
    Ok(report)
}

fn setting(options: &HistoryOptions, folder: &FilledFolder) -> String {
    let filled = folder.origin();
    format!("one conversation of {} messages ({filled}), pages of {}", options.messages, options.limit)
}

/// Two users in turn; words as text has them, one of them in every 10,000th message only.
fn fill(filler: &mut Filler, options: &HistoryOptions) -> BenchResult<()> {
    let (reader, writer) = (user(READER)?, user(WRITER)?);
    let conversation = ConversationId::private(&reader, &writer);
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = String::new();
    for number in 1..=options.messages {
        text.clear();
        for _ in 0..WORDS_PER_MESSAGE {
            // Low numbers are frequent words, as in a language.
            let word = (random.f64().powi(3) * WORDS as f64) as u32;
            text.push_str(&format!("w{word} "));
        }
        if number % RARE_EVERY == 1 {
            text.push_str(RARE);
        }
        let sender = if number % 2 == 0 { &reader } else { &writer };
        filler.message(sender, &conversation, &text)?;
    }
    // All of it has been delivered and read: the device is at the present.
    let seq = crate::types::Seq(options.messages);
    let device = crate::types::DeviceId::unnamed();
    let delivery = crate::types::record::Delivery { user: reader.clone(), device, conversation: conversation.clone(), seq };
    filler.write(crate::types::storage::Write::Deliveries(vec![delivery]))?;
    filler.write(crate::types::storage::Write::MarkRead { user: reader, conversation, seq })
}

fn pages(report: &mut Report, reader: &mut Solo, options: &HistoryOptions, line: &indicatif::ProgressBar) -> BenchResult<()> {
    let mut random = fastrand::Rng::with_seed(11);
    let places: [(Place, [&'static str; 4]); 3] = [
        (Place::Newest, ["newest_p50_us", "newest page, p50", "newest_p99_us", "newest page, p99"]),
        (Place::Middle, ["middle_p50_us", "page in the middle, p50", "middle_p99_us", "page in the middle, p99"]),
        (Place::Anywhere, ["anywhere_p50_us", "page anywhere, p50", "anywhere_p99_us", "page anywhere, p99"]),
    ];
    for (place, [p50_key, p50_label, p99_key, p99_label]) in places {
        line.set_message(format!("pages: {p50_label}"));
        let mut times = latencies();
        for number in 0..options.requests + WARM_REQUESTS {
            let end = match place {
                Place::Newest => options.messages + 1,
                Place::Middle => options.messages / 2,
                Place::Anywhere => random.u64(u64::from(options.limit) + 1..=options.messages + 1),
            };
            let before = if matches!(place, Place::Newest) { String::new() } else { format!(r#","before_seq":{end}"#) };
            let request = format!(
                r#"{{"type":"get_history","message_id":"h{number}","data":{{"user_id":"{WRITER}","limit":{}{before}}}}}"#,
                options.limit
            );
            let (page, time) = reader.ask(&request, "history")?;
            check_page(&page, end, options.limit)?;
            if number >= WARM_REQUESTS {
                record(&mut times, 0, time.as_nanos() as u64);
            }
        }
        report.figure(p50_key, p50_label, "µs", vec![quantile(&times, 0.5)]);
        report.figure(p99_key, p99_label, "µs", vec![quantile(&times, 0.99)]);
        report.at_most(p99_label, quantile(&times, 0.99), PAGE_P99_US_MAX, false);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Place {
    Newest,
    Middle,
    Anywhere,
}

/// A page that is not the one asked for would be fast for the wrong reason.
fn check_page(page: &str, end: u64, limit: u32) -> BenchResult<()> {
    let json: serde_json::Value =
        serde_json::from_str(page).map_err(|fault| BenchError::Server(format!("a page of history is no JSON: {fault}")))?;
    let messages = json["data"]["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let seqs: Vec<u64> = messages.iter().filter_map(|message| message["seq"].as_u64()).collect();
    let due: Vec<u64> = (end.saturating_sub(u64::from(limit)).max(1)..end).collect();
    if seqs == due {
        return Ok(());
    }
    Err(BenchError::Server(format!("asked for what is before {end}, got {} messages from {:?} on", seqs.len(), seqs.first())))
}

/// Waits until nothing is missing in the index: how long that took, in seconds. What it lacks is looked through by each search,
/// which is not what is measured.
fn indexed(server: &SpawnedServer) -> BenchResult<f64> {
    let begun = Instant::now();
    let lacks = |name| server.metric(name).is_none_or(|value| value > 0.0);
    let mut whole = 0;
    // The metrics are brought up to date now and then only.
    while whole < INDEXED_LOOKS {
        if begun.elapsed() > INDEXED_WITHIN {
            return Err(BenchError::Server(format!("the search index was not up to date after {} s", INDEXED_WITHIN.as_secs())));
        }
        std::thread::sleep(INDEXED_LOOK_EVERY);
        let behind = lacks("corehub_search_lag_messages") || lacks("corehub_search_rebuild_conversations");
        whole = if behind { 0 } else { whole + 1 };
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn searches(report: &mut Report, reader: &mut Solo, options: &HistoryOptions, line: &indicatif::ProgressBar) -> BenchResult<()> {
    let kinds: [(&str, [&'static str; 6]); 3] = [
        (
            RARE,
            [
                "rare_p50_us",
                "search, word in every 10,000th message, p50",
                "rare_p99_us",
                "search, word in every 10,000th message, p99",
                "rare_found",
                "found of the rare word in one answer",
            ],
        ),
        (
            "w0",
            [
                "common_p50_us",
                "search, frequent word, p50",
                "common_p99_us",
                "search, frequent word, p99",
                "common_found",
                "found of the frequent word",
            ],
        ),
        (
            "absent",
            [
                "absent_p50_us",
                "search, word that is nowhere, p50",
                "absent_p99_us",
                "search, word that is nowhere, p99",
                "absent_found",
                "found of the word that is nowhere",
            ],
        ),
    ];
    for (word, [p50_key, p50_label, p99_key, p99_label, found_key, found_label]) in kinds {
        line.set_message(format!("search: {word}"));
        let (mut times, mut found): (Histogram<u64>, u64) = (latencies(), 0);
        for number in 0..options.searches {
            let request = format!(
                r#"{{"type":"search","message_id":"s{number}","data":{{"query":"{word}","user_id":"{WRITER}","limit":20}}}}"#
            );
            let (answer, time) = reader.ask(&request, "search_result")?;
            let json: serde_json::Value = serde_json::from_str(&answer)
                .map_err(|fault| BenchError::Server(format!("an answer to search is no JSON: {fault}")))?;
            found = json["data"]["messages"].as_array().map_or(0, Vec::len) as u64;
            record(&mut times, 0, time.as_nanos() as u64);
        }
        report.figure(p50_key, p50_label, "µs", vec![quantile(&times, 0.5)]);
        report.figure(p99_key, p99_label, "µs", vec![quantile(&times, 0.99)]);
        report.figure(found_key, found_label, "", vec![found as f64]);
        report.at_most(p50_label, quantile(&times, 0.5), SEARCH_P50_US_MAX, false);
        if word == RARE {
            let due = options.messages.div_ceil(RARE_EVERY).min(SEARCH_LIMIT);
            report.at_least(found_label, found as f64, due as f64, false);
        }
    }
    Ok(())
}

const READER: &str = "history-reader";
const WRITER: &str = "history-writer";
const RARE: &str = "marmalade";
const RARE_EVERY: u64 = 10_000;
const WORDS: u32 = 20_000;
const WORDS_PER_MESSAGE: usize = 12;
/// Requests of each kind before times count.
const WARM_REQUESTS: u64 = 20;
const SEARCH_LIMIT: u64 = 20;
const INDEXED_LOOKS: u32 = 3;
const INDEXED_LOOK_EVERY: Duration = Duration::from_millis(500);
const INDEXED_WITHIN: Duration = Duration::from_secs(300);
const PAGE_P99_US_MAX: f64 = 5_000.0;
const SEARCH_P50_US_MAX: f64 = 50_000.0;
const MEBIBYTE: f64 = 1_048_576.0;
