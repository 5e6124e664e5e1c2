//! `[[step]]`

use toml::Spanned;

use super::rules::{self, Refusal};
use super::{Checker, Section};
use crate::config::raw::{self, Field};
use crate::config::{Stage, Step};
use crate::values::Timespan;

const STAGES: [(&str, Stage); 4] = [
    ("prepare", Stage::Prepare),
    ("window", Stage::Window),
    ("store", Stage::Store),
    ("finish", Stage::Finish),
];
const NAME: &str =
    "1 to 64 lower case letters, digits and '-', neither the first nor the last a '-'";

/// Whether an enabled step runs in the window.
pub(super) fn is_in_window(raw: &Field<Vec<Spanned<raw::Step>>>) -> bool {
    let mut steps = raw.iter().flat_map(|steps| steps.get_ref()).map(Spanned::get_ref);
    steps.any(|step| {
        step.stage.as_ref().is_some_and(|stage| stage.get_ref() == "window")
            && step.enable.as_ref().is_none_or(|enable| *enable.get_ref())
    })
}

/// Validates all steps and returns the enabled ones. Disabled steps are validated too, so that they
/// can be enabled later without errors.
pub(super) fn check(checker: &mut Checker, raw: Field<Vec<Spanned<raw::Step>>>) -> Vec<Step> {
    let mut steps: Vec<(bool, Step)> = Vec::new();
    for (index, element) in raw.map(Spanned::into_inner).unwrap_or_default().into_iter().enumerate()
    {
        let section = Section::of(format!("step[{index}]"), Some(&element));
        let raw = element.into_inner();
        let place = section.field("name", raw.name.as_ref());
        let enabled = raw.enable.as_ref().is_none_or(|enable| *enable.get_ref());
        let step = check_one(checker, &section, &raw);
        if let Some(first) =
            steps.iter().position(|(_, other)| !step.name.is_empty() && other.name == step.name)
        {
            let message = format!("'{}' is listed twice, first as step[{first}].name", step.name);
            checker.refuse(&place, Refusal::new(message, "a unique name"));
        }
        steps.push((enabled, step));
    }
    steps.into_iter().filter_map(|(enabled, step)| enabled.then_some(step)).collect()
}

fn check_one(checker: &mut Checker, section: &Section, raw: &raw::Step) -> Step {
    let stages = STAGES.map(|(word, _)| word).join(", ");
    for (name, missing, allowed) in [
        ("name", raw.name.is_none(), NAME),
        ("stage", raw.stage.is_none(), stages.as_str()),
        ("command", raw.command.is_none(), "a program and its arguments"),
    ] {
        if missing {
            checker.refuse(&section.place(name), Refusal::new("is missing", allowed));
        }
    }
    Step {
        name: checker
            .value(section, "name", raw.name.as_ref(), |text| name(text))
            .unwrap_or_default(),
        description: checker
            .value(section, "description", raw.description.as_ref(), |text| rules::one_line(text)),
        stage: checker
            .value(section, "stage", raw.stage.as_ref(), |word| rules::word(word, &STAGES))
            .unwrap_or(Stage::Finish),
        command: checker.command(section, &raw.command).unwrap_or_default(),
        user: checker.value(section, "user", raw.user.as_ref(), |name| rules::os_user(name)),
        timeout: checker
            .value(section, "timeout", raw.timeout.as_ref(), |text| {
                rules::timespan_above_zero(text)
            })
            .unwrap_or(Timespan::from_secs(60 * 60)),
    }
}

fn name(text: &str) -> Result<String, Refusal> {
    let characters = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let good = characters
        && !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(format!("'{text}' is not the name of a step"), NAME))
    }
}
