//! The entries, one after another.
//!
//! Not here: their order, which means nothing, and any lock.

use super::bridges::bridge_of_segment;
use super::slots::Value;
use super::sync::Ordering;
use super::{Entry, EntryState, MAC, MacTable, index_in, tick_of};
use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use crate::wire::vlan::Vlan;
use core::time::Duration;

impl MacTable {
    /// Shows every live entry to `f`, in no order that means anything: each once, when nothing changes
    /// meanwhile.
    pub fn for_each(&self, now: Instant, mut f: impl FnMut(Entry)) {
        let tick = tick_of(now);
        for slot in 0..self.slots.count() {
            let read = self.slots.read(slot, |key, value| {
                (self.segment_of[index_in(key)].load(Ordering::Acquire), self.port_behind(value))
            });
            if let Some((key, value, (segment, port))) = read
                && let Some(entry) = self.entry(tick, key, value, port, segment)
            {
                f(entry);
            }
        }
    }

    fn entry(&self, tick: u32, key: u64, value: Value, port: u32, segment: u32) -> Option<Entry> {
        let segment = segment.checked_sub(1)?;
        if self.has_aged(bridge_of_segment(segment as usize), value, tick) {
            return None;
        }
        let (state, age) = match value.is_static() {
            true => (EntryState::Static, 0),
            false => (EntryState::Learned, value.age(tick)),
        };
        Some(Entry {
            segment: segment_at(segment)?,
            mac: Mac::from_u64(key & MAC),
            port: PortId::new(port.checked_sub(1)?)?,
            age: Duration::from_secs(age.into()),
            state,
        })
    }
}

fn segment_at(number: u32) -> Option<Segment> {
    let vlan = Vlan::new(u16::try_from(number & 0xfff).ok()?)?;
    Segment::new(u8::try_from(number >> 12).ok()?, vlan)
}
