//! Owns writing everything as JSON lines, in an order that depends on the content alone. Holds one record at a time, and the
//! hidden marks of one user.

use std::io::{self, BufWriter, Write};

use fjall::Slice;

use super::super::codec::{self, Damaged, GroupRecord, RowRecord};
use super::super::keys;
use super::super::tables::{Look, Space, Trouble, View};
use super::lines::{
    ConversationLine, DeviceLine, EXPORT_VERSION, GroupLine, HiddenLine, LastSeenLine, Line, MemberLine, MessageLine, NoteLine,
    RowLine,
};
use super::{Workbench, guarded};
use crate::types::{ConversationId, Seq};

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportFault {
    #[error("{0}; `corehub store check` tells all that is damaged")]
    Trouble(#[from] Trouble),
    #[error("cannot write: {0}")]
    Out(io::Error),
}

impl Workbench {
    /// Writes everything; returns how many lines.
    ///
    /// # Errors
    /// When something cannot be read, or `out` takes no more.
    pub fn export(&self, out: &mut dyn Write) -> Result<u64, ExportFault> {
        let mut export = Export { view: self.tables.view(), out: BufWriter::new(out), lines: 0, failed: None };
        let done = guarded(|| export.everything());
        // A writer that failed is the reason, whatever ended the reading.
        if let Some(error) = export.failed {
            return Err(ExportFault::Out(error));
        }
        done?;
        export.out.flush().map_err(ExportFault::Out)?;
        Ok(export.lines)
    }
}

struct Export<'a> {
    view: View<'a>,
    out: BufWriter<&'a mut dyn Write>,
    lines: u64,
    failed: Option<io::Error>,
}

impl Export<'_> {
    fn everything(&mut self) -> Result<(), Trouble> {
        self.line(&Line::CorehubExport(EXPORT_VERSION))?;
        self.each(Space::Conversations, Export::conversation)?;
        self.each(Space::Groups, Export::group)?;
        self.each(Space::Rows, Export::row)?;
        self.each(Space::Devices, Export::device)?;
        self.hidden()?;
        self.each(Space::LastSeen, Export::last_seen)?;
        self.each(Space::Users, Export::user)?;
        self.each(Space::Notes, Export::note)?;
        self.line(&Line::End(self.lines))
    }

    fn each(&mut self, space: Space, write: fn(&mut Self, &Slice, &Slice) -> Result<(), Trouble>) -> Result<(), Trouble> {
        for guard in self.view.prefix(space, Slice::from(space.prefix())) {
            let (key, bytes) = guard.into_inner()?;
            write(self, &key, &bytes)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &Line) -> Result<(), Trouble> {
        let written = serde_json::to_writer(&mut self.out, line).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| self.out.write_all(b"\n")) {
            let ended = Trouble::Engine(fjall::Error::Io(io::Error::other("the output ended")));
            self.failed = Some(error);
            return Err(ended);
        }
        self.lines += 1;
        Ok(())
    }

    fn conversation(&mut self, key: &Slice, _: &Slice) -> Result<(), Trouble> {
        let id = text(key.get(1..)).and_then(|id| ConversationId::parse(id).ok()).ok_or(Damaged);
        let id = id.map_err(Trouble::at(Space::Conversations, "a key"))?;
        let place = || Trouble::at(Space::Conversations, id.as_str());
        let record = self.view.conversation_record(&id)?.ok_or(Damaged).map_err(place())?;
        let (first_kept, slack_ms, newest) = (record.first_kept.0, record.slack_ms, record.newest.0);
        self.line(&Line::Conversation(ConversationLine { id: id.to_string(), first_kept, slack_ms, newest }))?;
        let mut expected = record.first_kept;
        for guard in self.view.log(record.number, Seq(0), Seq(u64::MAX)) {
            let (key, bytes) = guard.into_inner()?;
            let place = format!("{id} seq {}", expected.0);
            let seq = keys::seq_of(&key).filter(|seq| *seq == expected).ok_or(Damaged);
            let seq = seq.map_err(Trouble::at(Space::Messages, place.as_str()))?;
            let message = codec::decode_message(&key, &bytes, &id, seq, self.view.keyring()).map_err(Trouble::message(place))?;
            self.line(&Line::Message(Box::new(MessageLine::of(&message))))?;
            expected = seq.next();
        }
        Ok(())
    }

    /// A group and its members: their records lie behind its own.
    fn group(&mut self, key: &Slice, bytes: &Slice) -> Result<(), Trouble> {
        let place = || Trouble::at(Space::Groups, String::from_utf8_lossy(key).replace('\0', " "));
        let Some((id, b'r', _)) = keys::group_parts(key) else { return Ok(()) };
        let GroupRecord { group, .. } = GroupRecord::decode(key, bytes).map_err(place())?;
        let (name, open, created_at) = (group.name.to_string(), group.open, group.created_at.0);
        self.line(&Line::Group(GroupLine { id: id.to_string(), name, open, created_at }))?;
        for guard in self.view.prefix(Space::Groups, keys::members(&id)) {
            let (key, bytes) = guard.into_inner()?;
            let member = codec::decode_member(&key, &bytes).map_err(place())?;
            self.line(&Line::Member(MemberLine {
                user: member.user.to_string(),
                role: member.role.name().to_owned(),
                joined_seq: member.joined_seq.0,
                joined_at: member.joined_at.0,
            }))?;
        }
        Ok(())
    }

    fn row(&mut self, key: &Slice, bytes: &Slice) -> Result<(), Trouble> {
        let place = || Trouble::at(Space::Rows, String::from_utf8_lossy(key).replace('\0', " "));
        let (user, conversation) = keys::row_parts(key).ok_or(Damaged).map_err(place())?;
        let row = RowRecord::decode(key, bytes).map_err(place())?;
        self.line(&Line::Row(RowLine {
            user: user.to_string(),
            conversation: conversation.to_string(),
            start_seq: row.start_seq.0,
            read_seq: row.read_seq.0,
            delivered: row.delivered.iter().map(|(device, seq)| (format!("{device:016x}"), seq.0)).collect(),
        }))
    }

    fn device(&mut self, key: &Slice, bytes: &Slice) -> Result<(), Trouble> {
        let place = || Trouble::at(Space::Devices, String::from_utf8_lossy(key).replace('\0', " "));
        let names = text(key.get(1..)).and_then(|text| text.split_once('\0')).ok_or(Damaged).map_err(place())?;
        let [since] = codec::decode_numbers(key, bytes).map_err(place())?;
        self.line(&Line::Device(DeviceLine { user: names.0.to_owned(), device: names.1.to_owned(), since }))
    }

    fn last_seen(&mut self, key: &Slice, bytes: &Slice) -> Result<(), Trouble> {
        let place = || Trouble::at(Space::LastSeen, String::from_utf8_lossy(key));
        let user = text(key.get(1..)).ok_or(Damaged).map_err(place())?.to_owned();
        let [at] = codec::decode_numbers(key, bytes).map_err(place())?;
        self.line(&Line::LastSeen(LastSeenLine { user, at }))
    }

    fn user(&mut self, key: &Slice, _: &Slice) -> Result<(), Trouble> {
        let user = text(key.get(1..)).ok_or(Damaged).map_err(Trouble::at(Space::Users, "a key"))?;
        self.line(&Line::User(user.to_owned()))
    }

    fn note(&mut self, key: &Slice, bytes: &Slice) -> Result<(), Trouble> {
        let place = || Trouble::at(Space::Notes, String::from_utf8_lossy(key).replace('\0', " "));
        let names = text(key.get(1..)).and_then(|text| text.split_once('\0')).ok_or(Damaged).map_err(place())?;
        let text = codec::decode_text(key, bytes).map_err(place())?;
        self.line(&Line::Note(NoteLine { kind: names.0.to_owned(), id: names.1.to_owned(), text }))
    }

    /// By conversation id, since numbers are not kept by an import.
    fn hidden(&mut self) -> Result<(), Trouble> {
        let mut of_user: (String, Vec<(ConversationId, u64)>) = Default::default();
        for guard in self.view.prefix(Space::Hidden, Slice::from(Space::Hidden.prefix())) {
            let key = guard.key()?;
            let place = || Trouble::at(Space::Hidden, String::from_utf8_lossy(&key).replace('\0', " "));
            let (user, number, seq) = keys::hidden_parts(&key).ok_or(Damaged).map_err(place())?;
            let conversation = self.view.conversation_id(number)?;
            if of_user.0 != user.as_str() {
                self.hidden_of(std::mem::take(&mut of_user))?;
                user.as_str().clone_into(&mut of_user.0);
            }
            of_user.1.push((conversation, seq.0));
        }
        self.hidden_of(of_user)
    }

    fn hidden_of(&mut self, (user, mut marks): (String, Vec<(ConversationId, u64)>)) -> Result<(), Trouble> {
        marks.sort_unstable();
        marks.into_iter().try_for_each(|(conversation, seq)| {
            self.line(&Line::Hidden(HiddenLine { user: user.clone(), conversation: conversation.to_string(), seq }))
        })
    }
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok()
}
