//! A vendor on localhost, in the test's own process, so that a test can ask it anything at once.

use serde_json::Value;
use tailwater_simulators::engine::{self, Prescription, Simulator, Stats};
use tailwater_simulators::klaviyo::{self, Klaviyo};

use crate::runtime;

/// A simulator that runs until this value goes.
#[derive(Debug)]
pub struct Vendor<V: engine::Vendor = Klaviyo> {
    simulator: Simulator<V>,
}

impl<V: engine::Vendor> Vendor<V> {
    /// Starts a simulator of any vendor.
    pub fn of(options: V::Options) -> Self {
        let simulator = runtime().block_on(Simulator::start(options));
        Self { simulator: simulator.unwrap_or_else(|error| panic!("no simulator: {error}")) }
    }

    pub fn url(&self) -> String {
        self.simulator.url()
    }

    pub fn simulator(&self) -> &Simulator<V> {
        &self.simulator
    }

    pub fn stats(&self) -> Stats {
        self.simulator.stats()
    }

    pub fn prescribe(&self, prescription: Prescription) {
        self.simulator.prescribe(prescription).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A person by email.
    pub fn person(&self, email: &str) -> Option<Value> {
        self.simulator.profile("email", email)
    }

    /// The emails of everybody, sorted.
    pub fn emails(&self) -> Vec<String> {
        let people = self.simulator.profiles();
        let mut emails: Vec<String> =
            people.iter().filter_map(|person| person["attributes"]["email"].as_str()).map(str::to_owned).collect();
        emails.sort();
        emails
    }

    /// The emails on a list, sorted.
    pub fn members(&self, list: &str) -> Vec<String> {
        let list = self.simulator.list(list).unwrap_or_default();
        let members = list["members"].as_array().cloned().unwrap_or_default();
        let mut emails: Vec<String> =
            members.iter().filter_map(|member| member["email"].as_str()).map(str::to_owned).collect();
        emails.sort();
        emails
    }
}

impl Vendor {
    /// Starts Klaviyo.
    pub fn start(options: klaviyo::Options) -> Self {
        Self::of(options)
    }

    /// A property of a person; null if there is no such person or property.
    pub fn property(&self, email: &str, name: &str) -> Value {
        self.person(email).map_or(Value::Null, |person| person["attributes"]["properties"][name].clone())
    }

    /// The property's values in the order in which they were sent for this person, singly or in bulk, and not refused.
    pub fn history(&self, email: &str, property: &str) -> Vec<Value> {
        let mut values = Vec::new();
        for request in self.simulator.requests() {
            if !(200..300).contains(&request.status) || !request.path.starts_with("/api/profile") {
                continue;
            }
            let single = std::slice::from_ref(&request.body["data"]);
            let bulk = request.body["data"]["attributes"]["profiles"]["data"].as_array();
            for profile in bulk.map_or(single, Vec::as_slice) {
                let attributes = &profile["attributes"];
                // The vendor takes an address in any case for the same one.
                if attributes["email"].as_str().is_some_and(|sent| sent.eq_ignore_ascii_case(email)) {
                    values.extend(attributes["properties"].get(property).cloned());
                }
            }
        }
        values
    }
}
