//! Puts figures into documents, between the marks that ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::figures::{Bug, Figures, Tried};

type Part = fn(&Figures) -> String;

/// What a mark can ask for.
const PARTS: [(&str, Part); 3] = [("summary", summary), ("rooms", rooms), ("bugs", bugs)];

const BEGIN: &str = "<!-- quoted from docs/crash-laboratory.json: ";
const END: &str = "<!-- end of the quotation -->";

/// Puts them into each document.
pub(crate) fn into(figures: &Figures, documents: &[PathBuf]) -> Result<()> {
    for path in documents {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let quoted = quoted(figures, &text).with_context(|| path.display().to_string())?;
        ringseal::Options::new().keep_mode().replace(path, quoted)?;
    }
    Ok(())
}

/// The text with what its marks ask for.
fn quoted(figures: &Figures, text: &str) -> Result<String> {
    let mut lines = text.lines();
    let mut out = String::new();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(asked) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        let Some((_, part)) = PARTS.iter().find(|(name, _)| *name == asked) else {
            bail!("no part of the figures is called {asked}");
        };
        out.push_str(&part(figures));
        if !lines.by_ref().any(|line| line == END) {
            bail!("the quotation of {asked} has no end");
        }
        out.push_str(END);
        out.push('\n');
    }
    Ok(out)
}

/// 1234567 as 1,234,567.
fn number(of: u64) -> String {
    let digits = of.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn summary(figures: &Figures) -> String {
    let states: u64 = figures.cuts.values().map(|cuts| cuts.all_states()).sum();
    // Only those in which it really happened.
    let hit = |of: &BTreeMap<String, Tried>| of.values().map(|tried| tried.hit).sum::<u64>();
    let errors = hit(&figures.errors);
    let (shutdowns, kills) = (hit(&figures.shutdowns), hit(&figures.kills));
    let limits: u64 = figures.limits.values().map(|tried| tried.runs).sum();
    let cases: u64 = figures.inputs.iter().map(|tally| tally.cases).sum();
    let bugs: BTreeSet<&str> = figures.bugs.iter().map(|bug| bug.name.as_str()).collect();
    // By everybody who is tried with it.
    let missed: BTreeSet<&str> =
        figures.bugs.iter().filter(|bug| !bug.is_shown()).map(|bug| bug.name.as_str()).collect();
    format!(
        "{} disks that a power cut could have left, {} runs with device errors, {} sudden shutdowns, {} kills, {} runs\n\
         short of something, {} cases of bad input: **{} broken promises**. Of {} planted bugs the laboratory finds {}.\n",
        number(states),
        number(errors),
        number(shutdowns),
        number(kills),
        number(limits),
        number(cases),
        figures.broken(),
        bugs.len(),
        bugs.len() - missed.len()
    )
}

fn rooms(figures: &Figures) -> String {
    let mut out =
        String::from("| room | on | tried | | broken |\n| --- | --- | --- | --- | --- |\n");
    for (name, cuts) in &figures.cuts {
        out.push_str(&format!(
            "| `cuts` | {name} | {} disks, of {} recordings | {} of them of {} recoveries; {} a minute | {} |\n",
            number(cuts.all_states()),
            number(cuts.recordings),
            number(cuts.recovery_states),
            number(cuts.recoveries),
            number((cuts.all_states() as f64 * 60.0 / cuts.seconds.max(1.0)) as u64),
            cuts.broken
        ));
    }
    let tried = [
        ("errors", "runs", "with an error", &figures.errors),
        ("stops", "shutdowns", "in the middle", &figures.shutdowns),
        ("stops", "kills", "in the middle", &figures.kills),
        ("limits", "runs", "with something refused", &figures.limits),
    ];
    for (room, what, middle, all) in tried {
        for (name, tried) in all {
            out.push_str(&format!(
                "| `{room}` | {name} | {} {what}, {} of them {middle} | answers: {} durable, {} unchanged, {} unknown | {} |\n",
                number(tried.runs),
                number(tried.hit),
                number(tried.durable),
                number(tried.unchanged),
                number(tried.unknown),
                tried.broken
            ));
        }
    }
    for tally in &figures.inputs {
        let cases = number(tally.cases);
        out.push_str(&format!(
            "| `inputs` | {} | {cases} cases | | {} |\n",
            tally.room, tally.broken
        ));
    }
    out.push_str(&format!("\nLinux {}, {} processors.\n", figures.kernel, figures.processors));
    out
}

fn bugs(figures: &Figures) -> String {
    let mut out = String::from(
        "| left out | who saves | on | found within | as |\n| --- | --- | --- | --- | --- |\n",
    );
    for bug in &figures.bugs {
        let found = bug.found.as_deref().filter(|_| bug.is_shown());
        let found = found.unwrap_or("**not found**, or without it too").replace('|', "\\|");
        let found: String = found.chars().take(140).collect();
        let Bug { name, by, filesystem, tries, .. } = bug;
        let tries = number(*tries);
        out.push_str(&format!("| {name} | {by} | {filesystem} | {tries} | {found} |\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_documents_say_what_the_figures_say() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let figures = Figures::read(&top.join("docs/crash-laboratory.json")).unwrap();
        let states: u64 = figures.cuts.values().map(|cuts| cuts.all_states()).sum();
        let errors: u64 = figures.errors.values().map(|tried| tried.hit).sum();
        assert!(states >= 100_000 && errors >= 3_000, "{states} disks, {errors} errors");
        let mut shutdowns = figures.shutdowns.values();
        assert!(shutdowns.len() == 2 && shutdowns.all(|tried| tried.hit >= 1_000));
        assert_eq!(figures.broken(), 0);
        for document in ["README.md", "docs/testing.md"] {
            let text = fs::read_to_string(top.join(document)).unwrap();
            assert!(text.contains(BEGIN), "{document} quotes nothing");
            assert_eq!(quoted(&figures, &text).unwrap(), text, "{document}");
        }
    }

    #[test]
    fn a_quotation_without_an_end_is_refused() {
        let text = format!("{BEGIN}summary -->\nold\n");
        assert!(quoted(&Figures::default(), &text).is_err());
        let text = format!("a\n{BEGIN}bugs -->\nold\n{END}\nb\n");
        let quoted = quoted(&Figures::default(), &text).unwrap();
        assert!(quoted.starts_with("a\n") && quoted.ends_with("b\n") && !quoted.contains("old"));
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(number(7), "7");
        assert_eq!(number(1234), "1,234");
        assert_eq!(number(1234567), "1,234,567");
    }
}
