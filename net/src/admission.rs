//! Which connections there may be. No clock and no sockets: the order of arrival is all it knows.
//!
//! A full port takes a newcomer in the place of one that nobody is served on: the one that waits longest, of the
//! address with the most of them. So a flood displaces itself, and an honest client, which speaks at once, is served
//! while it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// A connection, in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// Where connections come from, as far as they are counted together: an IPv4 address, or the /64 that one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            v6 @ IpAddr::V6(_) => write!(f, "{v6}/64"),
            v4 @ IpAddr::V4(_) => write!(f, "{v4}"),
        }
    }
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a place.
    Admitted(Id),
    /// It has the place of another one, which is to be closed.
    InPlaceOf {
        /// The newcomer.
        id: Id,
        /// Who goes.
        evicted: Id,
    },
    /// Every connection is being served.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    origin: Origin,
    /// Its place in the queue of those that wait; none while it is served.
    waits: Option<u64>,
}

/// The connections of one port.
#[derive(Debug)]
pub struct Admission {
    connections: usize,
    per_address: usize,
    open: BTreeMap<Id, Entry>,
    of_origin: BTreeMap<Origin, usize>,
    waiting: BTreeMap<Origin, BTreeSet<(u64, Id)>>,
    clock: u64,
}

impl Admission {
    /// None yet, and at most so many, in all and from one address.
    #[must_use]
    pub fn new(connections: usize, per_address: usize) -> Self {
        let (open, of_origin, waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { connections, per_address, open, of_origin, waiting, clock: 0 }
    }

    /// One arrives.
    pub fn arrive(&mut self, origin: Origin) -> Verdict {
        let crowded = self.of_origin.get(&origin).copied().unwrap_or(0) >= self.per_address;
        let evicted = if crowded {
            self.longest_waiting(origin)
        } else if self.open.len() >= self.connections {
            let busiest =
                self.waiting.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(origin, _)| *origin);
            busiest.and_then(|origin| self.longest_waiting(origin))
        } else {
            return Verdict::Admitted(self.enter(origin));
        };
        let Some(evicted) = evicted else { return Verdict::Refused };
        self.leave(evicted);
        Verdict::InPlaceOf { id: self.enter(origin), evicted }
    }

    /// It is gone. One that was evicted is already.
    pub fn leave(&mut self, id: Id) {
        let Some(Entry { origin, waits }) = self.open.remove(&id) else { return };
        self.dequeue(origin, waits, id);
        if let Some(count) = self.of_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.of_origin.remove(&origin);
            }
        }
    }

    /// It is served from now on: no newcomer displaces it.
    pub fn served(&mut self, id: Id) {
        let Some(entry) = self.open.get_mut(&id) else { return };
        let (origin, waits) = (entry.origin, entry.waits.take());
        self.dequeue(origin, waits, id);
    }

    /// Nothing is under way on it any more: it waits, behind all others.
    pub fn waits(&mut self, id: Id) {
        let Some(entry) = self.open.get_mut(&id) else { return };
        if entry.waits.is_none() {
            entry.waits = Some(self.clock);
            self.waiting.entry(entry.origin).or_default().insert((self.clock, id));
            self.clock += 1;
        }
    }

    /// One that nobody is served on, to free its descriptor: the process has none left.
    pub fn relieve(&mut self) -> Option<Id> {
        let busiest =
            self.waiting.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(origin, _)| *origin)?;
        let id = self.longest_waiting(busiest)?;
        self.leave(id);
        Some(id)
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn enter(&mut self, origin: Origin) -> Id {
        let id = Id(self.clock);
        self.open.insert(id, Entry { origin, waits: None });
        *self.of_origin.entry(origin).or_default() += 1;
        self.waits(id);
        id
    }

    fn longest_waiting(&self, origin: Origin) -> Option<Id> {
        self.waiting.get(&origin)?.first().map(|(_, id)| *id)
    }

    fn dequeue(&mut self, origin: Origin, waits: Option<u64>, id: Id) {
        let (Some(order), Some(queue)) = (waits, self.waiting.get_mut(&origin)) else { return };
        queue.remove(&(order, id));
        if queue.is_empty() {
            self.waiting.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn id(verdict: Verdict) -> Id {
        match verdict {
            Verdict::Admitted(id) | Verdict::InPlaceOf { id, .. } => id,
            Verdict::Refused => panic!("refused"),
        }
    }

    #[test]
    fn a_flood_displaces_itself_and_nobody_who_is_served() {
        let mut admission = Admission::new(4, 4);
        let honest = id(admission.arrive(origin(1)));
        admission.served(honest);
        let idle = id(admission.arrive(origin(1)));
        for _ in 0..1000 {
            assert_ne!(admission.arrive(origin(66)), Verdict::Refused);
            assert!(admission.open() <= 4);
        }
        // Of one address: the flood's were more, so the honest client's second one is still there.
        admission.served(idle);
        let newcomer = admission.arrive(origin(2));
        assert!(
            matches!(newcomer, Verdict::InPlaceOf { evicted, .. } if evicted != honest && evicted != idle)
        );
    }

    #[test]
    fn an_address_has_its_share_and_a_port_full_of_served_ones_refuses() {
        let mut admission = Admission::new(3, 2);
        for address in [7, 7] {
            let admitted = id(admission.arrive(origin(address)));
            admission.served(admitted);
        }
        assert_eq!(admission.arrive(origin(7)), Verdict::Refused, "its share is in use");
        let last = id(admission.arrive(origin(8)));
        admission.served(last);
        assert_eq!(admission.arrive(origin(9)), Verdict::Refused, "the port is");
        assert_eq!(admission.relieve(), None);
        admission.waits(last);
        assert!(matches!(admission.arrive(origin(9)), Verdict::InPlaceOf { evicted, .. } if evicted == last));
    }

    #[test]
    fn leaving_frees_the_place_and_leaves_nothing_behind() {
        let mut admission = Admission::new(2, 2);
        for _ in 0..10 {
            let (a, b) = (id(admission.arrive(origin(1))), id(admission.arrive(origin(2))));
            admission.served(a);
            admission.leave(a);
            admission.leave(b);
            admission.leave(b);
        }
        assert_eq!(admission.open(), 0);
        assert!(admission.of_origin.is_empty() && admission.waiting.is_empty());
    }

    #[test]
    fn addresses_of_one_customer_are_one_origin() {
        let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
