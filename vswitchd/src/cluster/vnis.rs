//! A set of VNIs as ranges: a node may host thousands in a row.
//!
//! Not here: which VLAN a VNI stands for.

use serde_json::{Value, json};
use std::ops::RangeInclusive;
use vswitch_core::Vni;

/// The most ranges of one set.
const MAX_RANGES: usize = 4096;

/// A set of VNIs: ranges in rising order that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VniRanges(Vec<RangeInclusive<u32>>);

impl VniRanges {
    /// Whether `vni` is in it.
    #[must_use]
    pub fn contains(&self, vni: Vni) -> bool {
        let at = self.0.partition_point(|range| *range.end() < vni.get());
        self.0.get(at).is_some_and(|range| range.contains(&vni.get()))
    }

    /// Its ranges, rising.
    pub fn ranges(&self) -> impl Iterator<Item = &RangeInclusive<u32>> {
        self.0.iter()
    }

    /// As the TOML file writes VNIs: `["10100-11099", 20001]`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let word = |range: &RangeInclusive<u32>| match (range.start(), range.end()) {
            (first, last) if first == last => json!(first),
            (first, last) => json!(format!("{first}-{last}")),
        };
        self.0.iter().map(word).collect()
    }

    /// What [`Self::to_json`] writes, in any order; `None` for anything else, and for more than 4,096 ranges.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let items = value.as_array().filter(|items| items.len() <= MAX_RANGES)?;
        let number = |text: &str| text.parse().ok().and_then(Vni::new).map(Vni::get);
        let mut ranges = Vec::with_capacity(items.len());
        for item in items {
            let range = match item {
                Value::String(text) => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    number(first)?..=number(last)?
                }
                other => {
                    let vni = Vni::new(u32::try_from(other.as_u64()?).ok()?)?.get();
                    vni..=vni
                }
            };
            if range.is_empty() {
                return None;
            }
            ranges.push(range);
        }
        ranges.sort_unstable_by_key(|range| *range.start());
        Some(Self(joined(ranges)))
    }
}

impl FromIterator<Vni> for VniRanges {
    fn from_iter<I: IntoIterator<Item = Vni>>(vnis: I) -> Self {
        let mut vnis: Vec<u32> = vnis.into_iter().map(Vni::get).collect();
        vnis.sort_unstable();
        Self(joined(vnis.into_iter().map(|vni| vni..=vni)))
    }
}

/// Ranges by rising start, those that touch made one.
fn joined(ranges: impl IntoIterator<Item = RangeInclusive<u32>>) -> Vec<RangeInclusive<u32>> {
    let mut joined: Vec<RangeInclusive<u32>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vnis_in_a_row_are_one_range_and_come_back_from_json() {
        let vni = |vni| Vni::new(vni).unwrap();
        let set: VniRanges = [7, 5, 6, 9, 5, 16_777_215].map(vni).into_iter().collect();
        assert_eq!(set.to_json(), json!(["5-7", 9, 16_777_215]));
        assert_eq!(VniRanges::from_json(&set.to_json()), Some(set.clone()));
        let mixed = json!(["9", "5-6", "6-7", 16_777_215]);
        assert_eq!(VniRanges::from_json(&mixed), Some(set.clone()));
        assert!([5, 6, 7, 9, 16_777_215].map(vni).into_iter().all(|vni| set.contains(vni)));
        assert!([0, 4, 8, 10].map(vni).into_iter().all(|vni| !set.contains(vni)));
    }

    #[test]
    fn what_is_no_set_of_vnis_is_refused() {
        let bad = [json!("5"), json!([-1]), json!([16_777_216]), json!(["7-5"]), json!(["a"]), json!([[1]])];
        for value in bad {
            assert_eq!(VniRanges::from_json(&value), None, "{value}");
        }
        assert_eq!(VniRanges::from_json(&json!(vec![1; 4097])), None);
    }
}
