//! Owns small seeded changes to inputs. Never looks at what they are for; the same seed and corpus give the same inputs.

/// Makes new inputs from kept ones.
pub struct Mutator<'c> {
    random: fastrand::Rng,
    corpus: &'c [Vec<u8>],
    words: &'c [Vec<u8>],
}

impl<'c> Mutator<'c> {
    /// `corpus` must not be empty.
    pub fn new(seed: u64, corpus: &'c [Vec<u8>], words: &'c [Vec<u8>]) -> Mutator<'c> {
        Mutator { random: fastrand::Rng::with_seed(seed), corpus, words }
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.kept().to_vec();
        for _ in 0..1 << self.random.u32(0..4) {
            self.change(&mut bytes);
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    fn kept(&mut self) -> &'c [u8] {
        &self.corpus[self.random.usize(0..self.corpus.len())]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.usize(0..=bytes.len());
        let end = at + self.random.usize(0..=(bytes.len() - at).min(64));
        match self.random.u32(0..12) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.random.u32(0..8),
            2 if at < bytes.len() => bytes[at] = NOTABLE[self.random.usize(0..NOTABLE.len())],
            3 if at < bytes.len() => bytes[at] = self.random.u8(..),
            4 => drop(bytes.drain(at..end)),
            5 => bytes.truncate(at),
            6 => {
                let again = bytes[at..end].repeat(1 << self.random.u32(0..8));
                bytes.splice(at..at, again);
            }
            7 => {
                let other = self.kept();
                let from = self.random.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            8 | 9 if !self.words.is_empty() => {
                let word = &self.words[self.random.usize(0..self.words.len())];
                bytes.splice(at..end, word.iter().copied());
            }
            10 => {
                let number = self.random.u64(..) >> self.random.u32(0..64);
                let number = if self.random.bool() { number.to_be_bytes() } else { number.to_le_bytes() };
                bytes.splice(at..end, number);
            }
            _ => {
                let count = self.random.usize(0..16);
                let new: Vec<u8> = (0..count).map(|_| self.random.u8(..)).collect();
                bytes.splice(at..at, new);
            }
        }
    }
}

const NOTABLE: [u8; 12] = [0, 1, 0x0a, 0x20, 0x22, 0x7e, 0x7f, 0x80, 0x81, 0xc2, 0xfe, 0xff];
const INPUT_BYTES_MAX: usize = 64 << 10;
