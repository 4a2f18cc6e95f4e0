//! How many files this process may have open, and how many of them connections may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept free of connections: the state store with its readers (three files each), the archive, policies, certificates,
/// the agent's requests to its API server, and what the runtime itself needs. A hub with a full store of
/// readers was seen to use about 90.
pub const RESERVE: usize = 192;
/// Taken for the limit where the system names none.
const UNLIMITED: usize = 1 << 20;

/// Raises the limit on open files as far as this process may, and answers what it is now. Shells start with 1,024 on
/// many systems, for the sake of programs that use `select`; nothing here does.
#[must_use]
pub fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::debug!("the limit on open files stays at {current:?}");
    }
    getrlimit(Resource::Nofile).current.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED))
}

/// How many of `limit` descriptors connections may take: all but the reserve, and half where there are few.
#[must_use]
pub fn for_connections(limit: usize) -> usize {
    limit - RESERVE.min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_for_the_store_whatever_the_limit_is() {
        for limit in [0, 1, 64, 256, 1024, 1 << 20] {
            let taken = for_connections(limit);
            assert!(limit - taken >= RESERVE.min(limit / 2), "{limit}");
        }
        assert_eq!(for_connections(1024), 1024 - RESERVE);
    }

    #[test]
    fn the_limit_is_never_lowered() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(raise() as u64 >= before.min(UNLIMITED as u64));
    }
}
