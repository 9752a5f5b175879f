//! From the body of a request to its items. Only what tells one item from another is read: the simulator checks the rest.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::Value;
use tailwater_simulators::klaviyo::Carrier;

use super::{Item, Kind, METRIC};

/// One item as it stands in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Carried {
    /// The place of its profile in the body.
    pub place: usize,
    pub item: Item,
    pub key: Option<u64>,
    pub stray: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Single {
    data: Profile,
}

#[derive(Deserialize)]
struct Profile {
    attributes: ProfileAttributes,
}

#[derive(Deserialize)]
struct ProfileAttributes {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default)]
    person: Value,
    #[serde(default)]
    activity_seq: Option<Value>,
    #[serde(default)]
    score_seq: Option<Value>,
    #[serde(default)]
    seq: Option<Value>,
}

#[derive(Deserialize)]
struct Job {
    data: JobData,
}

#[derive(Deserialize)]
struct JobData {
    attributes: JobAttributes,
}

#[derive(Deserialize)]
struct JobAttributes {
    profiles: Profiles,
}

#[derive(Deserialize)]
struct Profiles {
    data: Vec<Profile>,
}

#[derive(Deserialize)]
struct EventBody {
    data: Event,
}

#[derive(Deserialize)]
struct Event {
    attributes: EventAttributes,
}

#[derive(Deserialize)]
struct EventAttributes {
    #[serde(default)]
    unique_id: Option<String>,
    #[serde(default)]
    properties: Properties,
    metric: Metric,
    profile: Single,
}

#[derive(Deserialize)]
struct Metric {
    data: MetricData,
}

#[derive(Deserialize)]
struct MetricData {
    attributes: MetricAttributes,
}

#[derive(Deserialize)]
struct MetricAttributes {
    name: String,
}

/// The items of a body, in its order. A body that cannot be read is one stray.
pub(super) fn read(carrier: Carrier, body: &[u8]) -> Vec<Carried> {
    let read = match carrier {
        Carrier::Profile => serde_json::from_slice::<Single>(body).map(|body| of_profile(0, &body.data)),
        Carrier::Job => serde_json::from_slice::<Job>(body).map(|body| {
            let profiles = body.data.attributes.profiles.data;
            profiles.iter().enumerate().flat_map(|(place, profile)| of_profile(place, profile)).collect()
        }),
        Carrier::Event => serde_json::from_slice::<EventBody>(body).map(|body| vec![of_event(&body.data.attributes)]),
    };
    read.unwrap_or_else(|error| {
        let kind = if carrier == Carrier::Event { Kind::Track } else { Kind::Activity };
        let item = Item { kind, person: 0, seq: 0 };
        vec![Carried { place: 0, item, key: None, stray: Some(format!("its body cannot be read: {error}").into()) }]
    })
}

fn of_profile(place: usize, profile: &Profile) -> Vec<Carried> {
    let ProfileAttributes { email, properties } = &profile.attributes;
    let carried: Vec<Carried> =
        [(Kind::Activity, properties.activity_seq.as_ref()), (Kind::Score, properties.score_seq.as_ref())]
            .into_iter()
            .filter_map(|(kind, seq)| Some((kind, seq?)))
            .map(|(kind, seq)| carried(place, kind, &properties.person, seq, email.as_deref()))
            .collect();
    if carried.is_empty() {
        return vec![self::carried(place, Kind::Activity, &properties.person, &Value::Null, email.as_deref())];
    }
    carried
}

fn of_event(event: &EventAttributes) -> Carried {
    let email = event.profile.data.attributes.email.as_deref();
    let seq = event.properties.seq.as_ref().unwrap_or(&Value::Null);
    let mut carried = carried(0, Kind::Track, &event.properties.person, seq, email);
    let metric = &event.metric.data.attributes.name;
    match &event.unique_id {
        _ if metric != METRIC => carried.stray = Some(format!("its metric is `{metric}`").into()),
        None => carried.stray = Some("it has no unique_id".into()),
        Some(unique) => {
            let mut hasher = DefaultHasher::new();
            unique.hash(&mut hasher);
            carried.key = Some(hasher.finish());
        }
    }
    carried
}

fn carried(place: usize, kind: Kind, person: &Value, seq: &Value, email: Option<&str>) -> Carried {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let (read_person, read_seq) = (number(person), number(seq));
    let item = Item { kind, person: read_person.unwrap_or(0), seq: read_seq.unwrap_or(0) };
    let email = email.unwrap_or_default();
    let stray = match (read_person, read_seq) {
        (None, _) => Some(format!("its person is {person}; its email is `{email}`")),
        (_, None) => Some(format!("its sequence number is {seq}; its email is `{email}`")),
        (Some(person), Some(_)) => {
            let expected = email_of(person);
            (!email.eq_ignore_ascii_case(&expected))
                .then(|| format!("it is about the wrong person: its email is `{email}`, not `{expected}`"))
        }
    };
    Carried { place, item, key: None, stray: stray.map(Into::into) }
}

/// The email by which the vendor knows a person of the workload.
pub(super) fn email_of(person: u32) -> String {
    format!("p{person}@example.com")
}
