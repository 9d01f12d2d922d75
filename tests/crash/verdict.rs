//! Decides, from outside, whether the server kept its promises. Knows only what clients saw and what the logs show afterwards.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::facts::{Conversations, Facts, Sent, Stored};

/// Everything there is to judge.
pub struct Evidence<'a> {
    pub conversations: &'a Conversations,
    pub facts: &'a [&'a Facts],
    /// The whole log of each conversation, by its id.
    pub histories: HashMap<String, Vec<Stored>>,
    /// Fewer acknowledged messages than this prove nothing.
    pub acks_min: usize,
}

#[derive(Default)]
pub struct Verdict {
    pub counts: Counts,
    /// What was broken, one sentence each. Empty: every promise was kept.
    pub violations: Vec<String>,
}

#[derive(Default)]
pub struct Counts {
    pub acks: usize,
    pub unanswered: usize,
    pub pushes: usize,
    /// Of these, how many were called repeats.
    pub redelivered: usize,
    pub connections: usize,
    pub lost: usize,
    pub duplicates: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acks, unanswered, pushes, redelivered, connections, lost, duplicates } = self;
        write!(out, "acks={acks} unanswered={unanswered} pushes={pushes} redelivered={redelivered} connections={connections} ")?;
        write!(out, "lost={lost} duplicates={duplicates}")
    }
}

/// Compares what was seen with what was promised.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.counts.acks = evidence.facts.iter().map(|facts| facts.acks()).sum();
    verdict.counts.unanswered = evidence.facts.iter().map(|facts| facts.sends.len()).sum::<usize>() - verdict.counts.acks;
    if verdict.counts.acks < evidence.acks_min.max(1) {
        let found = verdict.counts.acks;
        verdict.violations.push(format!("no verdict without traffic: {found} acks, {} are needed", evidence.acks_min));
    }
    for facts in evidence.facts {
        verdict.violations.extend(facts.faults.iter().cloned());
        if !facts.sends.is_empty() && !facts.settled {
            verdict.violations.push(format!("{} never got an answer to all it sent", facts.user));
        }
    }
    verdict.histories(evidence);
    verdict.acks(evidence);
    verdict.order_in_time(evidence);
    verdict.sessions(evidence);
    for (user, message_id) in missing(evidence.conversations, evidence.facts) {
        verdict.lost(format!("{user} never got {message_id}"));
    }
    verdict
}

/// Who was never sent which acknowledged message.
pub fn missing(conversations: &Conversations, facts: &[&Facts]) -> Vec<(String, String)> {
    let got: HashMap<&str, HashSet<&str>> = facts
        .iter()
        .map(|facts| {
            let pushes = facts.sessions.iter().flat_map(|session| &session.pushes);
            (facts.user.as_str(), pushes.map(|push| push.message_id.as_str()).collect())
        })
        .collect();
    let mut missing = Vec::new();
    for sender in facts {
        for ack in sender.sends.iter().filter_map(|sent| sent.acks.first()) {
            for member in conversations.get(&ack.conversation).into_iter().flatten() {
                let has = got.get(member.as_str()).is_some_and(|got| got.contains(ack.message_id.as_str()));
                if *member != sender.user && !has {
                    missing.push((member.clone(), format!("{} ({} seq {})", ack.message_id, ack.conversation, ack.seq)));
                }
            }
        }
    }
    missing
}

impl Verdict {
    /// Every log counts from 1 without gaps, and holds only what somebody sent there, once.
    fn histories(&mut self, evidence: &Evidence<'_>) {
        let sent: HashMap<(&str, &str), &Sent> =
            sends(evidence.facts).map(|(user, sent)| ((user, &*sent.client_id), sent)).collect();
        let mut uses = HashSet::new();
        for (conversation, log) in &evidence.histories {
            for (expected, message) in (1..).zip(log) {
                if message.seq != expected {
                    self.violations.push(format!("{conversation} has seq {} in the place of {expected}", message.seq));
                }
                if !message.intact {
                    self.violations.push(format!("the content of {} is not what was sent", message.client_id));
                }
                if !uses.insert((&*message.sender, &*message.client_id)) {
                    self.counts.duplicates += 1;
                    self.violations.push(format!("{} of {} is stored twice", message.client_id, message.sender));
                }
                let known = sent.get(&(&*message.sender, &*message.client_id));
                if known.is_none_or(|sent| sent.conversation != *conversation) {
                    self.violations.push(format!("{conversation} holds {}, which nobody sent there", message.client_id));
                }
            }
        }
    }

    /// Every acknowledged message is in the log in the place that its acknowledgements name.
    fn acks(&mut self, evidence: &Evidence<'_>) {
        for (user, sent) in sends(evidence.facts) {
            let Some(first) = sent.acks.first() else { continue };
            let place = (&first.conversation, first.seq, &first.message_id);
            if sent.acks.iter().any(|ack| (&ack.conversation, ack.seq, &ack.message_id) != place) {
                self.violations.push(format!("{} was acknowledged in two places", sent.client_id));
            }
            if first.conversation != sent.conversation {
                self.violations.push(format!("{} was acknowledged in {}", sent.client_id, first.conversation));
            }
            let fresh = sent.acks.iter().filter(|ack| !ack.duplicate).count();
            if fresh > 1 || (fresh == 0 && sent.attempts == 1) {
                let attempts = sent.attempts;
                self.violations.push(format!("{}: {attempts} attempts, {fresh} acks without `duplicate`", sent.client_id));
            }
            let log = evidence.histories.get(&first.conversation).map(Vec::as_slice).unwrap_or_default();
            let stored = first.seq.checked_sub(1).and_then(|at| log.get(at as usize));
            let same = |stored: &Stored| {
                (&*stored.sender, &stored.client_id, &stored.message_id) == (user, &sent.client_id, &first.message_id)
            };
            if !stored.is_some_and(same) {
                let shown = format!("{} was acknowledged as {} seq {}", sent.client_id, first.conversation, first.seq);
                self.lost(format!("{shown}, the log has {stored:?} there"));
            }
        }
    }

    /// Whoever sends after an acknowledgement has arrived comes behind the acknowledged message.
    fn order_in_time(&mut self, evidence: &Evidence<'_>) {
        let mut moments = Vec::new();
        for (_, sent) in sends(evidence.facts) {
            let Some(ack) = sent.acks.first() else { continue };
            moments.push((&sent.conversation, ack.at, true, ack.seq, &sent.client_id));
            moments.push((&sent.conversation, sent.first_sent, false, ack.seq, &sent.client_id));
        }
        moments.sort_unstable();
        let mut highest: Option<(&String, u64)> = None;
        for (conversation, _, is_ack, seq, client_id) in moments {
            let known = highest.filter(|(of, _)| *of == conversation).map_or(0, |(_, seq)| seq);
            if is_ack {
                highest = Some((conversation, known.max(seq)));
            } else if seq <= known {
                self.violations.push(format!("{client_id} has seq {seq} in {conversation}, sent after {known} was acknowledged"));
            }
        }
    }

    /// Every connection sees each log in order, without repeats that are not called so and without gaps.
    fn sessions(&mut self, evidence: &Evidence<'_>) {
        for facts in evidence.facts {
            for session in &facts.sessions {
                self.counts.connections += 1;
                self.counts.pushes += session.pushes.len();
                let of = format!("{} on {}", facts.user, session.device);
                let mut heard: HashMap<&str, u64> = HashMap::new();
                for push in &session.pushes {
                    let Some(log) = evidence.histories.get(&push.conversation) else {
                        self.violations.push(format!("{of} got {push:?} of a conversation that is not known"));
                        continue;
                    };
                    let stored = push.seq.checked_sub(1).and_then(|at| log.get(at as usize));
                    if !stored.is_some_and(|stored| *stored == Stored { redelivered: false, ..push.clone() }) {
                        self.violations.push(format!("{of} got {push:?}, the log has {stored:?}"));
                        continue;
                    }
                    self.counts.redelivered += usize::from(push.redelivered);
                    let last = heard.entry(&push.conversation).or_insert(push.seq.saturating_sub(1));
                    if push.seq <= *last && !push.redelivered {
                        self.violations.push(format!("{of} got {} seq {} again after {last}", push.conversation, push.seq));
                    }
                    // What a client has sent itself or says to have is no gap.
                    let has = session.cursors.get(&push.conversation).copied().unwrap_or_default();
                    let skipped = (has.max(*last) + 1..push.seq).filter_map(|seq| log.get(seq as usize - 1));
                    if let Some(gap) = skipped.into_iter().find(|message| message.sender != facts.user) {
                        let (conversation, seq) = (&push.conversation, push.seq);
                        self.violations.push(format!("{of} got {conversation} seq {seq} after {last}, without {}", gap.seq));
                    }
                    *last = push.seq.max(*last);
                }
            }
        }
    }

    fn lost(&mut self, what: String) {
        self.counts.lost += 1;
        self.violations.push(what);
    }
}

fn sends<'a>(facts: &'a [&'a Facts]) -> impl Iterator<Item = (&'a str, &'a Sent)> {
    facts.iter().flat_map(|facts| facts.sends.iter().map(|sent| (&*facts.user, sent)))
}
