//! Inputs that are a row of operations.

/// Operations of one input: more only make it slow.
const OPERATIONS: usize = 64;

/// Cuts an input into operations: a byte that says which, two that say how long, then the bytes of it. The last one
/// may be cut short.
pub(crate) fn operations(mut data: &[u8]) -> Vec<(u8, &[u8])> {
    let mut operations = Vec::new();
    while let Some(([which, low, high], rest)) = data.split_first_chunk::<3>()
        && operations.len() < OPERATIONS
    {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, after) = rest.split_at(len);
        operations.push((*which, bytes));
        data = after;
    }
    operations
}

/// Numbers that follow from an input and nothing else (xorshift).
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn from(data: &[u8]) -> Self {
        // FNV-1a.
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash | 1)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.0 % end).unwrap_or(0)
    }
}
