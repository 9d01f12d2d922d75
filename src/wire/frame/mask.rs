//! Owns unmasking (RFC 6455 section 5.3). Never allocates. Written as loops over whole blocks of a known size, which the
//! compiler turns into vector instructions without any `unsafe`.

/// XORs `payload` with `mask`; `phase` is how many payload bytes of the same frame came before it.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    let mut key = [0; BLOCK_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = mask[at % 4];
    }
    let (blocks, rest) = payload.as_chunks_mut::<BLOCK_BYTES>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(&key) {
            *byte ^= key;
        }
    }
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(&key) {
        *byte ^= key;
    }
}

/// A multiple of the mask and of common vector widths.
const BLOCK_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_for_every_length_and_phase() {
        let mask = [0x12, 0xfe, 0x00, 0x9b];
        for length in 0..150 {
            for phase in 0..9 {
                let mut bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
                let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[(at + phase) % 4]).collect();
                unmask(&mut bytes, mask, phase);
                assert_eq!(bytes, expected, "length {length} phase {phase}");
            }
        }
    }
}
