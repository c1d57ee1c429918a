//! Places for servers: a backend has more of them than endpoints, so that a pod that comes takes one without a reload.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

/// The file in which the translation names them.
pub(crate) const SERVERS: &str = "servers.json";

/// The endpoints of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Servers {
    /// A multiple of this is how many places there are.
    pub(crate) room: usize,
    pub(crate) addresses: Vec<SocketAddrV4>,
}

/// Who is where, by backend. A server keeps its place as long as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(BTreeMap<String, Vec<Option<SocketAddrV4>>>);

impl Slots {
    /// The places for these endpoints.
    pub(crate) fn place(&self, wanted: BTreeMap<String, Servers>) -> Self {
        let place = |(name, servers): (String, Servers)| {
            let Servers { room, mut addresses } = servers;
            let mut slots = self.0.get(&name).cloned().unwrap_or_default();
            for slot in &mut slots {
                match slot.and_then(|address| addresses.iter().position(|wanted| *wanted == address)) {
                    Some(index) => drop(addresses.swap_remove(index)),
                    None => *slot = None,
                }
            }
            // In order, whatever was taken out.
            addresses.sort_unstable();
            let mut new = addresses.into_iter();
            for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
                *slot = new.next();
            }
            slots.extend(new.map(Some));
            slots.resize(slots.len().next_multiple_of(room.max(1)).max(room), None);
            (name, slots)
        };
        Self(wanted.into_iter().map(place).collect())
    }

    /// The lines of a backend's servers.
    pub(crate) fn lines(&self, backend: &str) -> impl Iterator<Item = String> {
        self.0.get(backend).into_iter().flatten().zip(1..).map(|(slot, number)| match slot {
            Some(address) => format!("server SRV_{number} {address} enabled"),
            None => format!("server SRV_{number} 127.0.0.1:1 disabled"),
        })
    }

    /// What the runtime API is told to come from `self` to `new`; none when there are other places, which takes a reload.
    pub(crate) fn commands(&self, new: &Self) -> Option<Vec<String>> {
        let places = |slots: &Self| -> Vec<(String, usize)> {
            slots.0.iter().map(|(name, slots)| (name.clone(), slots.len())).collect()
        };
        if places(self) != places(new) {
            return None;
        }
        let mut commands = Vec::new();
        for ((name, old), new) in self.0.iter().zip(new.0.values()) {
            for ((old, new), number) in old.iter().zip(new).zip(1..).filter(|((old, new), _)| old != new) {
                let server = format!("{name}/SRV_{number}");
                // A server that is another one from now on must not keep the other's connections.
                if old.is_some() {
                    commands.push(format!("set server {server} state maint"));
                }
                if let Some(address) = new {
                    commands.push(format!("set server {server} addr {} port {}", address.ip(), address.port()));
                    commands.push(format!("set server {server} state ready"));
                }
            }
        }
        Some(commands)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(room: usize, addresses: &[u8]) -> BTreeMap<String, Servers> {
        let addresses = addresses.iter().map(|last| format!("10.0.0.{last}:80").parse().unwrap()).collect();
        [("b".to_owned(), Servers { room, addresses })].into()
    }

    #[test]
    fn a_server_keeps_its_place_and_a_new_one_takes_a_free_one() {
        let slots = Slots::default().place(wanted(3, &[1, 2]));
        let lines: Vec<String> = slots.lines("b").collect();
        let none = "server SRV_3 127.0.0.1:1 disabled".to_owned();
        assert_eq!(lines, ["server SRV_1 10.0.0.1:80 enabled", "server SRV_2 10.0.0.2:80 enabled", &none]);
        let next = slots.place(wanted(3, &[2, 3]));
        let commands = slots.commands(&next).unwrap();
        let told = ["set server b/SRV_1 state maint", "set server b/SRV_1 addr 10.0.0.3 port 80"];
        assert_eq!(commands[..2], told);
        assert_eq!(commands[2..], ["set server b/SRV_1 state ready"]);
    }

    #[test]
    fn no_room_and_other_backends_take_a_reload() {
        let slots = Slots::default().place(wanted(2, &[1, 2]));
        let next = slots.place(wanted(2, &[1, 2, 3]));
        assert_eq!((next.lines("b").count(), slots.commands(&next)), (4, None));
        assert_eq!(slots.commands(&Slots::default()), None);
        assert_eq!(Slots::default().place(wanted(42, &[])).lines("b").count(), 42);
    }

    proptest! {
        #[test]
        fn everybody_has_one_place_whatever_came_before(
            first in proptest::collection::btree_set(0..30_u8, 0..12),
            second in proptest::collection::btree_set(0..30_u8, 0..12),
            room in 1..6_usize,
        ) {
            let set = |addresses: &std::collections::BTreeSet<u8>| wanted(room, &addresses.iter().copied().collect::<Vec<_>>());
            let old = Slots::default().place(set(&first));
            let new = old.place(set(&second));
            let mut there: Vec<SocketAddrV4> = new.0["b"].iter().copied().flatten().collect();
            there.sort_unstable();
            let mut expected = set(&second).remove("b").unwrap().addresses;
            expected.sort_unstable();
            prop_assert_eq!(there, expected);
            prop_assert_eq!(new.0["b"].len() % room, 0);
            for (old, new) in old.0["b"].iter().zip(&new.0["b"]) {
                let stays = old.is_some_and(|address| second.contains(&address.ip().octets()[3]));
                prop_assert!(!stays || old == new);
            }
        }
    }
}
