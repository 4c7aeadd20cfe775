//! Cuts the power, breaks the disk and starves the process under ringseal. See the README beside it.

mod inputs;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names, paths, bytes and sequences that nobody thought of, against models.
    Inputs {
        /// Cases, of all rooms together.
        #[arg(long, default_value_t = 1_000_000)]
        cases: u64,
        /// Gives the same cases again.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One room only.
        #[arg(long)]
        room: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let Command::Inputs { cases, seed, room } = Arguments::parse().command;
    let progress = |room: &str, cases| eprintln!("{room}: {cases} cases");
    let tallies = match room {
        None => inputs::run(cases, seed, &progress)?,
        Some(room) => inputs::run_room(&room, cases, seed, &progress)?,
    };
    for tally in &tallies {
        println!("{}", serde_json::to_string(tally)?);
    }
    anyhow::ensure!(tallies.iter().all(|tally| tally.broken == 0), "a promise was broken");
    Ok(())
}
