//! The account: people, lists, jobs and events, and what each operation does to them. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use serde_json::{Value, json};

use crate::engine::clock::stamp;
use crate::engine::{Answer, Body, Effects, Memory, Prescriptions};

use super::answer::{self, Problem};
use super::change::{self, Change, Form};
use super::endpoints::Endpoint;
use super::events::Event;
use super::filter;
use super::jobs::{Job, JobDuration, Jobs, Order, WAITING_PROFILES_MAX};
use super::page::{Page, parameter};
use super::people::{People, Profile, Refusal, Upserted};

/// A single resource in a request.
pub(super) const SINGLE_BYTES_MAX: usize = 100_000;
/// A bulk request and an event. The vendor says 5 MB; the smaller reading of it holds.
pub(super) const BULK_BYTES_MAX: usize = 5_000_000;
pub(super) const JOB_PROFILES_MAX: usize = 10_000;
const MEMBERS_PER_CALL_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 20;
const PAGE_MAX: usize = 100;
/// Lists come ten at a time, as documented.
const LISTS_PAGE_MAX: usize = 10;
const LISTS_MAX: usize = 1_000;

/// A request as the account sees it: who asks has been settled.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The number of the request.
    pub request: u64,
    pub endpoint: Endpoint,
    /// The id in the path, where there is one.
    pub id: &'a str,
    pub path: &'a str,
    pub query: &'a [(String, String)],
    pub body: &'a [u8],
    /// The address under which the client knows this service.
    pub base: &'a str,
    pub job_duration: JobDuration,
}

#[derive(Debug)]
pub(super) struct List {
    pub name: String,
    pub members: BTreeSet<String>,
    created_us: i64,
}

#[derive(Debug)]
pub(super) struct Account {
    pub people: People,
    pub lists: BTreeMap<String, List>,
    pub jobs: Jobs,
    pub events: VecDeque<Event>,
    /// Events that are kept; the oldest make room.
    pub events_max: usize,
    pub events_accepted: u64,
    /// Events that were ignored because the same one had been accepted before.
    pub events_repeated: u64,
    pub event_keys: HashSet<(String, String, String)>,
}

// === impl Account ===

impl Account {
    pub fn new(memory: Memory) -> Self {
        Self {
            people: People::default(),
            lists: BTreeMap::new(),
            jobs: Jobs::new(memory.jobs_max),
            events: VecDeque::new(),
            events_max: memory.events_max,
            events_accepted: 0,
            events_repeated: 0,
            event_keys: HashSet::new(),
        }
    }

    pub fn add_list(&mut self, id: &str, name: &str, now_us: i64) -> bool {
        if self.lists.len() >= LISTS_MAX && !self.lists.contains_key(id) {
            return false;
        }
        let list = self.lists.entry(id.to_owned()).or_insert_with(|| List {
            name: String::new(),
            members: BTreeSet::new(),
            created_us: now_us,
        });
        name.clone_into(&mut list.name);
        true
    }

    /// Completes the jobs that are due, and tells the numbers of their requests with what took effect. Everything else sees the
    /// account as it is after that.
    pub fn advance(&mut self, prescriptions: &mut Prescriptions, now_us: i64) -> Vec<(u64, Effects)> {
        let mut settled = Vec::new();
        while let Some((id, work)) = self.jobs.next_due(now_us) {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if job.cancel {
                settled.push((job.request, Effects::Nothing));
                continue;
            }
            let mut failures = Vec::new();
            for (place, (payload, change)) in work.into_iter().enumerate() {
                let failed = prescriptions.import_error(&payload, now_us);
                let result = match failed {
                    Some(error) => {
                        Err(Problem::new(400, error.code, "Invalid input.", error.detail, "/data/attributes"))
                    }
                    None => {
                        self.people.upsert(&change, now_us).map_err(|refusal| refusal.to_problem("/data/attributes"))
                    }
                };
                match result {
                    Ok(Upserted::Created(profile) | Upserted::Updated(profile)) => job.imported.push(profile),
                    Err(problem) => {
                        job.errors.push(problem.to_import_error(&payload));
                        failures.push(place);
                    }
                }
            }
            let effects = if failures.is_empty() { Effects::All } else { Effects::AllBut(failures) };
            settled.push((job.request, effects));
            for list in &job.lists {
                if let Some(list) = self.lists.get_mut(list) {
                    list.members.extend(job.imported.iter().cloned());
                }
            }
        }
        settled
    }

    pub fn handle(&mut self, call: &Call<'_>, prescriptions: &mut Prescriptions, now_us: i64) -> Answer {
        let answer = match call.endpoint {
            Endpoint::GetAccounts => Ok(accounts(call)),
            Endpoint::ImportProfile => self.import_profile(call, now_us),
            Endpoint::CreateProfile => self.create_profile(call, now_us),
            Endpoint::UpdateProfile => self.update_profile(call, now_us),
            Endpoint::GetProfile => self.get_profile(call),
            Endpoint::ListProfiles => self.list_profiles(call),
            Endpoint::CreateImportJob => self.create_job(call, prescriptions, now_us),
            Endpoint::ListImportJobs => self.list_jobs(call, now_us),
            Endpoint::GetImportJob => self.get_job(call, now_us),
            Endpoint::ImportJobErrors => self.job_errors(call),
            Endpoint::ImportJobProfiles => self.job_profiles(call),
            Endpoint::ListLists => self.list_lists(call),
            Endpoint::CreateList => self.create_list(call, now_us),
            Endpoint::GetList => self.get_list(call),
            Endpoint::ListMembers => self.members(call, true),
            Endpoint::ListMemberIds => self.members(call, false),
            Endpoint::AddMembers => self.change_members(call, true),
            Endpoint::RemoveMembers => self.change_members(call, false),
            Endpoint::CreateEvent => self.create_event(call, now_us),
        };
        answer.unwrap_or_else(|answer| answer)
    }

    /// A person for tests and people: id, attributes, and the lists that it is on.
    pub fn summary(&self, id: &str) -> Value {
        let lists: Vec<&String> =
            self.lists.iter().filter(|(_, list)| list.members.contains(id)).map(|(list, _)| list).collect();
        let attributes = self.people.get(id).map_or(Value::Null, Profile::attributes);
        json!({"id": id, "attributes": attributes, "lists": lists})
    }

    // --- profiles ---

    fn import_profile(&mut self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let change = single_profile(call, Form::Import)?;
        let upserted = self.people.upsert(&change, now_us).map_err(|refusal| refused(&refusal))?;
        let (status, id) = match upserted {
            Upserted::Created(id) => (201, id),
            Upserted::Updated(id) => (200, id),
        };
        self.profile_answer(status, &id, call)
    }

    fn create_profile(&mut self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let change = single_profile(call, Form::Create)?;
        let id = self.people.create_new(&change, now_us).map_err(|refusal| refused(&refusal))?;
        let answer = self.profile_answer(201, &id, call)?;
        Ok(match change.partial_failure {
            Some(field) => answer.with_header("x-klaviyo-partial-failure", field),
            None => answer,
        })
    }

    fn update_profile(&mut self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let change = single_profile(call, Form::Update)?;
        if change.id.as_deref() != Some(call.id) {
            return Err(Problem::invalid("The id must be that of the path.", "/data/id").into());
        }
        self.people.update(call.id, &change, now_us).map_err(|refusal| refused(&refusal))?;
        self.profile_answer(200, call.id, call)
    }

    fn get_profile(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let mut answer = self.profile_answer(200, call.id, call)?;
        if parameter(call.query, "include").is_some_and(|include| include.split(',').any(|part| part == "lists")) {
            let lists = self.lists.iter().filter(|(_, list)| list.members.contains(call.id));
            let included: Vec<Value> = lists.map(|(id, list)| list.to_json(id, call.base)).collect();
            if let Body::Json(body) = &mut answer.body {
                body["included"] = Value::Array(included);
            }
        }
        Ok(answer)
    }

    fn profile_answer(&self, status: u16, id: &str, call: &Call<'_>) -> Result<Answer, Answer> {
        let profile = self.people.get(id).ok_or_else(|| refused(&Refusal::UnknownId(id.to_owned())))?;
        Ok(answer::json(status, document(profile.to_json(call.base), call)))
    }

    fn list_profiles(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let page = Page::of(call, PAGE_DEFAULT, PAGE_MAX)?;
        let conditions = match parameter(call.query, "filter") {
            Some(text) => filter::parse(text, &["id", "email", "phone_number", "external_id"])
                .map_err(|detail| Answer::from(Problem::parameter(detail, "filter")))?,
            None => Vec::new(),
        };
        let Some(first) = conditions.first() else {
            return Ok(page.answer(
                self.people.after(&page.cursor).map(|profile| (profile.id.clone(), profile.to_json(call.base))),
            ));
        };
        let candidates: BTreeMap<&str, &Profile> = first
            .values
            .iter()
            .filter_map(|value| self.people.find(&first.field, value))
            .filter(|profile| conditions.iter().all(|condition| meets(profile, condition)))
            .map(|profile| (profile.id.as_str(), profile))
            .collect();
        let after = candidates.into_iter().filter(|(id, _)| *id > page.cursor.as_str());
        Ok(page.answer(after.map(|(id, profile)| (id.to_owned(), profile.to_json(call.base)))))
    }

    // --- bulk import jobs ---

    fn create_job(
        &mut self,
        call: &Call<'_>,
        prescriptions: &mut Prescriptions,
        now_us: i64,
    ) -> Result<Answer, Answer> {
        let body = document_of(call, BULK_BYTES_MAX)?;
        let data = resource(&body, "profile-bulk-import-job")?;
        let base = "/data/attributes/profiles/data";
        let Some(elements) = data.pointer("/attributes/profiles/data").and_then(Value::as_array) else {
            return Err(Problem::invalid("The profiles are required.", base).into());
        };
        if elements.is_empty() || elements.len() > JOB_PROFILES_MAX {
            let detail = format!(
                "Between 1 and {JOB_PROFILES_MAX} profiles are allowed per job; {} were given.",
                elements.len()
            );
            return Err(Problem::invalid(detail, base).into());
        }
        let mut problems = Vec::new();
        let mut profiles = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let pointer = format!("{base}/{index}");
            if element.to_string().len() > SINGLE_BYTES_MAX {
                problems.push(Problem::invalid("The profile exceeds the maximum payload size of 100KB.", pointer));
                continue;
            }
            match change::parse(element, &pointer, Form::Job) {
                Ok(change) => profiles.push((element.clone(), change)),
                Err(found) => problems.extend(found),
            }
        }
        let lists = self.lists_of(data, &mut problems);
        if !problems.is_empty() {
            return Err(answer::problems(&problems));
        }
        if self.jobs.waiting_profiles() + profiles.len() > WAITING_PROFILES_MAX {
            return Err(answer::full("profiles in unfinished jobs", WAITING_PROFILES_MAX));
        }
        let cancel = prescriptions.cancel_job(now_us);
        let order = Order { request: call.request, profiles, lists, cancel, duration: call.job_duration };
        let id = self.jobs.submit(order, now_us);
        let job = self.job(&id)?;
        Ok(answer::json(202, document(job.to_json(call.base, now_us), call)))
    }

    fn lists_of(&self, data: &Value, problems: &mut Vec<Problem>) -> Vec<String> {
        let mut lists = Vec::new();
        let named = data.pointer("/relationships/lists/data").and_then(Value::as_array);
        for (index, element) in named.into_iter().flatten().enumerate() {
            let pointer = format!("/data/relationships/lists/data/{index}");
            if element.get("type").and_then(Value::as_str) != Some("list") {
                problems.push(Problem::invalid("The type must be 'list'.", format!("{pointer}/type")));
                continue;
            }
            match element.get("id").and_then(Value::as_str) {
                Some(id) if self.lists.contains_key(id) => lists.push(id.to_owned()),
                Some(id) => problems
                    .push(Problem::invalid(format!("A list with id {id} does not exist."), format!("{pointer}/id"))),
                None => problems.push(Problem::invalid("The id of a list is required.", format!("{pointer}/id"))),
            }
        }
        lists
    }

    fn job(&self, id: &str) -> Result<&Job, Answer> {
        self.jobs
            .get(id)
            .ok_or_else(|| Problem::not_found(format!("A bulk import job with id {id} does not exist.")).into())
    }

    fn get_job(&self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        Ok(answer::json(200, document(self.job(call.id)?.to_json(call.base, now_us), call)))
    }

    fn list_jobs(&self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let page = Page::of(call, PAGE_DEFAULT, PAGE_MAX)?;
        Ok(page.answer(self.jobs.after(&page.cursor).map(|job| (job.id.clone(), job.to_json(call.base, now_us)))))
    }

    fn job_errors(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let page = Page::of(call, PAGE_DEFAULT, PAGE_MAX)?;
        Ok(page.numbered(&self.job(call.id)?.errors, Value::clone))
    }

    fn job_profiles(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let page = Page::of(call, PAGE_DEFAULT, PAGE_MAX)?;
        let imported = &self.job(call.id)?.imported;
        Ok(page.numbered(imported, |id| self.people.get(id).map_or(Value::Null, |profile| profile.to_json(call.base))))
    }

    // --- lists ---

    fn list_lists(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let page = Page::of(call, LISTS_PAGE_MAX, LISTS_PAGE_MAX)?;
        let conditions = match parameter(call.query, "filter") {
            Some(text) => filter::parse(text, &["id", "name"])
                .map_err(|detail| Answer::from(Problem::parameter(detail, "filter")))?,
            None => Vec::new(),
        };
        let fits = |id: &str, list: &List| {
            conditions.iter().all(|condition| {
                let value = if condition.field == "id" { id } else { list.name.as_str() };
                condition.values.iter().any(|wanted| wanted == value)
            })
        };
        let found = self.lists.iter().filter(|(id, list)| **id > page.cursor && fits(id, list));
        Ok(page.answer(found.map(|(id, list)| (id.clone(), list.to_json(id, call.base)))))
    }

    fn create_list(&mut self, call: &Call<'_>, now_us: i64) -> Result<Answer, Answer> {
        let body = document_of(call, SINGLE_BYTES_MAX)?;
        let Some(name) = resource(&body, "list")?.pointer("/attributes/name").and_then(Value::as_str) else {
            return Err(Problem::invalid("The name is required.", "/data/attributes/name").into());
        };
        let id: String = uuid::Uuid::new_v4().simple().to_string().to_uppercase().chars().take(6).collect();
        if !self.add_list(&id, name, now_us) {
            return Err(answer::full("lists", LISTS_MAX));
        }
        let list = self.list(&id)?;
        Ok(answer::json(201, document(list.to_json(&id, call.base), call)))
    }

    fn list(&self, id: &str) -> Result<&List, Answer> {
        self.lists.get(id).ok_or_else(|| Problem::not_found(format!("A list with id {id} does not exist.")).into())
    }

    fn get_list(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let list = self.list(call.id)?;
        let mut resource = list.to_json(call.id, call.base);
        if parameter(call.query, "additional-fields[list]")
            .is_some_and(|fields| fields.split(',').any(|part| part == "profile_count"))
        {
            resource["attributes"]["profile_count"] = json!(list.members.len());
        }
        Ok(answer::json(200, document(resource, call)))
    }

    fn members(&self, call: &Call<'_>, whole: bool) -> Result<Answer, Answer> {
        let list = self.list(call.id)?;
        let page = Page::of(call, PAGE_DEFAULT, PAGE_MAX)?;
        let ids = list.members.iter().filter(|id| **id > page.cursor);
        Ok(page.answer(ids.filter_map(|id| self.people.get(id)).map(|profile| {
            let shown = if whole { profile.to_json(call.base) } else { json!({"type": "profile", "id": profile.id}) };
            (profile.id.clone(), shown)
        })))
    }

    fn change_members(&mut self, call: &Call<'_>, add: bool) -> Result<Answer, Answer> {
        self.list(call.id)?;
        let body = document_of(call, SINGLE_BYTES_MAX)?;
        let Some(elements) = body.get("data").and_then(Value::as_array) else {
            return Err(Problem::invalid("The data must be an array of profiles.", "/data").into());
        };
        if elements.is_empty() || elements.len() > MEMBERS_PER_CALL_MAX {
            let detail = format!(
                "Between 1 and {MEMBERS_PER_CALL_MAX} profiles are allowed per call; {} were given.",
                elements.len()
            );
            return Err(Problem::invalid(detail, "/data").into());
        }
        let mut problems = Vec::new();
        let mut ids = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            if element.get("type").and_then(Value::as_str) != Some("profile") {
                problems.push(Problem::invalid("The type must be 'profile'.", format!("/data/{index}/type")));
                continue;
            }
            match element.get("id").and_then(Value::as_str) {
                Some(id) if self.people.get(id).is_some() => ids.push(id.to_owned()),
                // What the vendor does about an id that it does not know is not documented: the whole call is refused here.
                Some(id) => problems.push(Problem::new(
                    404,
                    "not_found",
                    "Not found.",
                    format!("A profile with id {id} does not exist."),
                    format!("/data/{index}/id"),
                )),
                None => {
                    problems.push(Problem::invalid("The id of a profile is required.", format!("/data/{index}/id")));
                }
            }
        }
        if !problems.is_empty() {
            return Err(answer::problems(&problems));
        }
        if let Some(list) = self.lists.get_mut(call.id) {
            for id in ids {
                if add {
                    list.members.insert(id);
                } else {
                    list.members.remove(&id);
                }
            }
        }
        Ok(Answer::empty(204))
    }
}

// === impl List ===

impl List {
    pub fn to_json(&self, id: &str, base: &str) -> Value {
        let links = |name: &str| {
            json!({"links": {
                "self": format!("{base}/api/lists/{id}/relationships/{name}/"),
                "related": format!("{base}/api/lists/{id}/{name}/"),
            }})
        };
        json!({
            "type": "list",
            "id": id,
            "attributes": {
                "name": self.name,
                "created": stamp(self.created_us),
                "updated": stamp(self.created_us),
                "opt_in_process": "single_opt_in",
            },
            "relationships": {"profiles": links("profiles"), "tags": links("tags"), "flow-triggers": links("flow-triggers")},
            "links": {"self": format!("{base}/api/lists/{id}/")},
        })
    }
}

// === small readers ===

fn accounts(call: &Call<'_>) -> Answer {
    let account = json!({
        "type": "account",
        "id": "SiMuL8",
        "attributes": {
            "test_account": true,
            "contact_information": {"default_sender_name": "Simulator", "default_sender_email": "simulator@example.com", "organization_name": "Simulator"},
            "timezone": "UTC",
            "preferred_currency": "USD",
            "public_api_key": "SiMuL8",
            "locale": "en-US",
        },
        "links": {"self": format!("{}/api/accounts/SiMuL8/", call.base)},
    });
    answer::json(
        200,
        json!({"data": [account], "links": {"self": format!("{}{}", call.base, call.path), "next": null, "prev": null}}),
    )
}

pub(super) fn refused(refusal: &Refusal) -> Answer {
    refusal.to_problem("/data/attributes").into()
}

fn document(data: Value, call: &Call<'_>) -> Value {
    json!({"data": data, "links": {"self": format!("{}{}", call.base, call.path)}})
}

pub(super) fn document_of(call: &Call<'_>, bytes_max: usize) -> Result<Value, Answer> {
    if call.body.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    serde_json::from_slice(call.body).map_err(|error| {
        Problem::invalid(format!("The payload provided in the request is no valid JSON: {error}."), "/data").into()
    })
}

pub(super) fn too_large(bytes_max: usize) -> Answer {
    let detail = format!("The payload exceeds the maximum size of {bytes_max} bytes.");
    Problem::new(413, "payload_too_large", "Payload too large.", detail, "/data").into()
}

pub(super) fn resource<'a>(body: &'a Value, kind: &str) -> Result<&'a Value, Answer> {
    let Some(data) = body.get("data").filter(|data| data.is_object()) else {
        return Err(Problem::invalid("The data is required and must be an object.", "/data").into());
    };
    if data.get("type").and_then(Value::as_str) != Some(kind) {
        return Err(Problem::invalid(format!("The type must be '{kind}'."), "/data/type").into());
    }
    Ok(data)
}

fn single_profile(call: &Call<'_>, form: Form) -> Result<Change, Answer> {
    let body = document_of(call, SINGLE_BYTES_MAX)?;
    let data = resource(&body, "profile")?;
    change::parse(data, "/data", form).map_err(|problems| answer::problems(&problems))
}

fn meets(profile: &Profile, condition: &filter::Condition) -> bool {
    let value = if condition.field == "id" { Some(profile.id.as_str()) } else { profile.field(&condition.field) };
    condition.values.iter().any(|wanted| {
        value.is_some_and(|value| value == wanted || (condition.field == "email" && value == wanted.to_lowercase()))
    })
}
