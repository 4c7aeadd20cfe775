//! `tokio::fs`, whose every operation is a call on the runtime's blocking threads.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Entry, Writer, temp_beside};
use crate::cell::{Cell, parent};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::new(
            "tokio_fs",
            "threads",
            "tokio::fs, a task for each file, all at once (up to 512 blocking threads)",
            || Ok(Box::new(Tasks(runtime()?))),
        ),
        Entry::new("tokio_fs_loop", "threads", "tokio::fs, one file after the other", || {
            Ok(Box::new(Loop(runtime()?)))
        }),
    ]
}

fn runtime() -> Result<Runtime> {
    Runtime::new().context("start a tokio runtime")
}

async fn replace(target: PathBuf, bytes: Bytes) -> Result<()> {
    let temp = temp_beside(&target);
    let mut file = File::create_new(&temp).await?;
    file.write_all(&bytes).await?;
    file.sync_all().await?;
    fs::rename(&temp, &target).await?;
    File::open(parent(&target)).await?.sync_all().await?;
    Ok(())
}

#[derive(Debug)]
struct Tasks(Runtime);

impl Writer for Tasks {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        self.0.block_on(async {
            let tasks = cell.pairs().map(|(path, bytes)| replace(path.into(), bytes.clone()));
            let mut tasks: JoinSet<Result<()>> = tasks.collect();
            while let Some(outcome) = tasks.join_next().await {
                outcome.context("a task ended early")??;
            }
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Loop(Runtime);

impl Writer for Loop {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        self.0.block_on(async {
            for (path, bytes) in cell.pairs() {
                replace(path.into(), bytes.clone()).await?;
            }
            Ok(())
        })
    }
}
