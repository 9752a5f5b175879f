//! The requests of a batch as people may see them: `--dry-run`. Pure; the credentials are masked, the ids that only the vendor
//! can give stand as placeholders.

use std::collections::BTreeMap;

use tailwater_core::delivery::Delivery;

use super::grouping::{self, Grouping};
use super::requests::{self, LIST_PROFILES_MAX, body};
use super::{Klaviyo, lookup, payload};
use crate::destination::Planned;
use crate::http::Request;

/// Stands for the id that the vendor's answer to an upsert gives.
const ID_TO_COME: &str = "<the id that profile-import answers>";

impl Klaviyo {
    pub(super) fn plan_batch(&self, batch: &[Delivery]) -> Vec<Planned> {
        let mut planned = Vec::new();
        if !self.config.create {
            planned.extend(
                lookup::plan(self.key_field, batch).into_iter().map(|(request, members)| self.show(request, members)),
            );
        }
        let all: Vec<usize> = (0..batch.len()).collect();
        let grouping = Grouping { bulk_from: self.config.bulk_from, prefer_jobs: false, alone: &|_| false };
        let groups = grouping::group(batch, &all, &grouping);
        planned.extend(
            groups.events.iter().filter_map(|&index| {
                batch.get(index).map(|delivery| self.show(requests::event(delivery), vec![index]))
            }),
        );
        planned
            .extend(groups.singles.iter().map(|&index| self.show(requests::upsert(&body(batch, index)), vec![index])));
        let mut joins: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &index in &groups.singles {
            let lists = batch.get(index).map(|delivery| payload::lists(delivery.operation.body.get()));
            for list in lists.unwrap_or_default() {
                joins.entry(list).or_default().push(index);
            }
        }
        for (list, members) in joins {
            for members in members.chunks(LIST_PROFILES_MAX) {
                let request = requests::add_to_list(&list, members.iter().map(|_| ID_TO_COME));
                planned.push(self.show(request, members.to_vec()));
            }
        }
        for (lists, members) in &groups.bulk {
            for members in grouping::bulk_parts(batch, lists, members, &|_| usize::MAX) {
                let request = requests::bulk_import(grouping::job_bodies(batch, &members), lists);
                planned.push(self.show(request, members));
            }
        }
        planned
    }

    fn show(&self, request: Request, deliveries: Vec<usize>) -> Planned {
        self.sender.account().plan(&request, deliveries)
    }
}
