//! A small deterministic mutator: the same seed gives the same inputs, on every machine.

/// Tokens that parsers have branches for.
const TOKENS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\0",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"'",
    b"- ",
    b": ",
    b"? ",
    b"---\n",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!binary ",
    b"|\n",
    b"#",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80",
    b"\xff",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"true",
    b"1e999",
    b"-0.0",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"0.1000000000000000055511151231257827",
    b".",
    b"..",
    b"/",
    b"%2F",
    b"~",
    b"*",
    b"c4n4ry",
    b"{\"type\":\"ADDED\",\"object\":",
    b"{\"type\":\"BOOKMARK\",\"object\":",
    b"\"metadata\":{\"name\":\"a\"}",
    b"\"resourceVersion\":\"9\"",
    b"\"items\":[",
    b"\"continue\":\"t\"",
    b"\"code\":410",
    b"\"f:a\":{}",
    b"\"k:{\\\"name\\\":\\\"a\\\"}\":{}",
    b"\"v:1\":{}",
    b"\"i:0\":{}",
    b"\".\":{}",
    b"\"managedFields\":[",
    b"lockstep.dev/",
    b"kind: ",
    b"spec:\n",
    b"resources:\n",
    b"matchLabels: {a: b}",
    b"apiVersion: sync.k8s.io/v1",
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x0a\x00",
    b"\x12\x02",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
];
/// Longest input made.
const LONGEST: usize = 64 << 10;

/// Makes inputs out of inputs.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A mutator that makes the same inputs for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// A few changes of one input; `others` are what it is spliced with.
    #[must_use]
    pub fn mutate(&mut self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, others);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(32) + 1);
        match self.below(9) {
            0 | 1 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            2 => {
                let new = self.next().to_le_bytes()[0];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = new;
                }
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                // What is there once more, up to a hundred times.
                let times = 1 + self.below(100);
                let again = bytes[at..end].repeat(times);
                bytes.splice(at..at, again);
            }
            6 | 7 => {
                let token = TOKENS[self.below(TOKENS.len())];
                let over = if self.below(2) == 0 { at } else { end };
                bytes.splice(at..over, token.iter().copied());
            }
            _ => {
                let Some(other) = others.get(self.below(others.len())) else { return };
                let from = self.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
}
