//! The requests of a batch as people may see them: `--dry-run`. Pure; the credentials are masked.

use tailwater_core::delivery::Delivery;

use super::Customerio;
use super::deliver::{by_segment, group};
use super::requests::{self, Item};
use crate::destination::Planned;

impl Customerio {
    pub(super) fn plan_batch(&self, batch: &[Delivery]) -> Vec<Planned> {
        let prepared = self.prepare(batch);
        let groups = group(batch, &prepared);
        let mut planned = Vec::new();
        for (items, members) in [
            (&prepared.items, &groups.objects),
            (&prepared.existence, &groups.needing),
            (&prepared.items, &groups.needing),
            (&prepared.items, &groups.others),
        ] {
            let item = |index: usize| items.get(&index);
            for part in requests::parts(members, &item, &|_| usize::MAX) {
                let items: Vec<&Item> = part.iter().filter_map(|&index| item(index)).collect();
                planned.push(self.sender.account().plan(&requests::send(self.api, &items), part));
            }
        }
        for (segment, people) in by_segment(batch, &prepared.members, &groups.members) {
            for part in requests::segment_parts(&people, &|_| usize::MAX) {
                let request = requests::members(segment, part.iter().filter_map(|index| prepared.members.get(index)));
                planned.push(self.sender.account().plan(&request, part));
            }
        }
        planned
    }
}
