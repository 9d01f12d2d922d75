//! Owns the clients' ends of connections: what they say travels up, what they are told travels down, and they answer pings and
//! close frames. Never loses or reorders what one of them says.

use super::super::agenda::Happening;
use super::super::seat::Incoming;
use super::super::socket::{Heard, LineId, Piece, Said, Server, frames, parse};
use super::{Delay, Node};

impl Node {
    pub(super) fn upload(&mut self, line: LineId, said: Said) {
        if !self.lines[line.0].present {
            return;
        }
        self.remark(|| format!("line {} says {said}", line.0));
        for piece in self.cut(said) {
            let delay_us = self.draw(Delay::Socket);
            let found = &mut self.lines[line.0];
            found.upward.push_back(piece);
            found.upward_us = found.upward_us.max(self.now_us + delay_us);
            self.agenda.put(found.upward_us, Happening::Upload(line.0));
        }
    }

    /// What is said, as masked frames, in the pieces in which it arrives.
    fn cut(&mut self, said: Said) -> Vec<Piece> {
        let Some(mut bytes) = frames(said, &mut self.random) else { return vec![Piece::End] };
        let mut pieces = Vec::new();
        while bytes.len() > 1 && self.random.u8(..6) == 0 {
            let rest = bytes.split_off(self.random.usize(1..bytes.len()));
            pieces.push(Piece::Bytes(std::mem::replace(&mut bytes, rest)));
        }
        pieces.push(Piece::Bytes(bytes));
        pieces
    }

    pub(super) fn plan_upload(&mut self, line: LineId) {
        for _ in 0..self.lines[line.0].upward.len() {
            self.agenda.put(self.now_us, Happening::Upload(line.0));
        }
    }

    pub(super) fn uploaded(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        if found.held {
            // The end of a connection is noticed also where nothing is read, by what can no longer be sent.
            if found.upward.back() != Some(&Piece::End) {
                return;
            }
            found.upward.drain(..found.upward.len() - 1);
        }
        let Some(piece) = found.upward.pop_front() else { return };
        let shard = found.shard;
        self.deliver(shard, Incoming::From(line, piece));
    }

    pub(super) fn plan_sent(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        if found.flight_bytes.is_some() && !found.sent_planned && found.flight_fits() {
            found.sent_planned = true;
            let at_us = self.now_us + self.draw(Delay::Turn);
            self.agenda.put(at_us, Happening::Sent(line.0));
        }
    }

    pub(super) fn plan_download(&mut self, line: LineId) {
        let found = &mut self.lines[line.0];
        let something = !found.downward.is_empty() || found.server != Server::Open;
        if found.present && found.reads && something && !found.reading_planned {
            found.reading_planned = true;
            let at_us = self.now_us + self.draw(Delay::Socket);
            self.agenda.put(at_us, Happening::Download(line.0));
        }
    }

    pub(super) fn download(&mut self, line: LineId) {
        self.lines[line.0].reading_planned = false;
        if !self.lines[line.0].present || !self.lines[line.0].reads {
            return;
        }
        let frames = self.random.usize(1..=DOWNLOAD_FRAMES_MAX);
        for _ in 0..frames {
            let found = &mut self.lines[line.0];
            let Some(frame) = found.downward.pop_front() else { break };
            found.downward_bytes -= frame.len();
            let heard = parse(frame.bytes());
            self.remark(|| format!("line {} hears {heard}", line.0));
            let found = &mut self.lines[line.0];
            found.heard.push(heard.clone());
            if !found.answers {
                continue;
            }
            match heard {
                Heard::Ping => self.upload(line, Said::Pong),
                Heard::Close(code, _) => self.upload(line, Said::Close(code)),
                _ => {}
            }
        }
        self.plan_sent(line);
        let found = &mut self.lines[line.0];
        if found.downward.is_empty() && found.server != Server::Open {
            found.heard.push(Heard::Lost);
            self.upload(line, Said::End);
            self.lines[line.0].present = false;
        } else {
            self.plan_download(line);
        }
    }
}

const DOWNLOAD_FRAMES_MAX: usize = 16;
