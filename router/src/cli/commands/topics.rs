//! `tailwater topics`: shows or makes the topics that the configuration needs.

use tailwater_core::code;

use crate::cli::args::{TopicsArgs, TopicsCommand};
use crate::cli::load::{Purpose, load};
use crate::cli::{Error, Exit, Global, output};
use crate::config::Kafka;
use crate::kafka::read::Reader;
use crate::kafka::topics::{self, Step, Wanted};
use crate::stages::route::existence::{self, New};

/// # Errors
/// The configuration cannot be used, no broker answers, or the right to create is missing.
pub fn execute(args: &TopicsArgs, global: &Global) -> Result<Exit, Error> {
    let config = load(global, Purpose::Look)?;
    let failed = |error: crate::kafka::Error| Error::failed(error.code(), &error);
    Reader::reach(&config.kafka).map_err(failed)?;
    let steps = topics::plan(&config.kafka, &topics::wanted(&config)).map_err(failed)?;
    let new = existence::find_new(&config).map_err(failed)?;
    match &args.command {
        TopicsCommand::Plan(options) => {
            if options.json {
                output::json(&shown(&steps, &new))?;
            } else {
                show(&config.kafka, &steps)?;
                notices(&new)?;
            }
            let open = steps.iter().filter(|step| !matches!(step, Step::Fine { .. })).count();
            Ok(if open == 0 { Exit::Success } else { Exit::Problem })
        }
        TopicsCommand::Apply(options) => {
            let made = topics::apply(&config.kafka, &steps).map_err(failed)?;
            existence::write(&config.kafka, &new, crate::runtime::clock::now()).map_err(failed)?;
            if options.json {
                output::json(&shown(&steps, &new))?;
            } else {
                for step in steps.iter().filter(|step| !matches!(step, Step::Fine { .. })) {
                    output::line(&step.to_string())?;
                }
                let fine = steps.iter().filter(|step| matches!(step, Step::Fine { .. })).count();
                output::line(&format!("{made} topics made, {fine} were there"))?;
                notices(&new)?;
            }
            match steps.iter().filter(|step| step.is_blocking()).count() {
                0 => Ok(Exit::Success),
                open => Err(Error::Failed {
                    code: code::TOPIC_MISMATCH,
                    message: format!("{open} topics are left for a person to look at, see above"),
                }),
            }
        }
    }
}

fn show(kafka: &Kafka, steps: &[Step]) -> Result<(), Error> {
    for step in steps {
        output::line(&step.to_string())?;
    }
    let missing: Vec<&Wanted> =
        steps.iter().filter_map(|step| if let Step::Create(wanted) = step { Some(wanted) } else { None }).collect();
    if missing.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output::line(
        "`tailwater topics apply` makes what is missing. Whoever has the right to create can also use Kafka's own tool:",
    )?;
    for wanted in missing {
        output::line(&command(kafka, wanted))?;
    }
    Ok(())
}

/// Says what destinations that are new do with the events from before them.
fn notices(new: &[New]) -> Result<(), Error> {
    new.iter().filter_map(New::notice).try_for_each(|notice| output::line(&notice))
}

fn shown(steps: &[Step], new: &[New]) -> Vec<Shown> {
    let notices = new
        .iter()
        .filter_map(|new| Some(Shown { topic: new.destination.clone(), step: "destination", text: new.notice()? }));
    steps.iter().map(Shown::from).chain(notices).collect()
}

/// A step, for programs.
#[derive(serde::Serialize)]
struct Shown {
    topic: String,
    step: &'static str,
    text: String,
}

impl From<&Step> for Shown {
    fn from(step: &Step) -> Self {
        let (topic, name) = match step {
            Step::Fine { name } => (name, "fine"),
            Step::Create(wanted) => (&wanted.name, "create"),
            Step::Absent { name } => (name, "absent"),
            Step::Partitions { name, .. } => (name, "partitions"),
            Step::Setting { name, .. } => (name, "setting"),
        };
        Self { topic: topic.clone(), step: name, text: step.to_string() }
    }
}

/// The same with the tool that comes with Kafka, for whoever has the right to create.
fn command(kafka: &Kafka, wanted: &Wanted) -> String {
    let settings: String = wanted.settings.iter().map(|(name, value)| format!(" --config {name}={value}")).collect();
    format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {} --replication-factor {}{settings}",
        kafka.brokers, wanted.name, wanted.partitions, kafka.replication_factor
    )
}
