//! The requests of a batch as people may see them: `--dry-run`. Pure; the credentials are masked.

use tailwater_core::delivery::Delivery;

use super::Iterable;
use super::grouping;
use super::person::Person;
use super::requests::{self, Call};
use crate::destination::Planned;

impl Iterable {
    pub(super) fn plan_batch(&self, batch: &[Delivery]) -> Vec<Planned> {
        let account = self.sender.account();
        let mut planned = Vec::new();
        let all: Vec<usize> = (0..batch.len()).collect();
        if !self.config.create {
            for &index in &all {
                let call = batch.get(index).and_then(|delivery| Call::of(&delivery.operation));
                let key = Person::of(requests::body(batch, index)).key();
                if let Some((field, value)) = key.filter(|_| call.is_some_and(Call::creates)) {
                    planned.push(account.plan(&requests::look_up(field, &value), vec![index]));
                }
            }
        }
        let groups = self.groups(batch, &all);
        for (index, call) in groups.alone {
            let request =
                batch.get(index).and_then(|delivery| requests::single(call, delivery, self.config.create_new_fields));
            planned.extend(request.map(|request| account.plan(&request, vec![index])));
        }
        for (together, members) in &groups.together {
            for part in grouping::parts(batch, members, &|_| usize::MAX, &|_| false) {
                planned.push(account.plan(&self.bulk(together, batch, &part), part));
            }
        }
        planned
    }
}
