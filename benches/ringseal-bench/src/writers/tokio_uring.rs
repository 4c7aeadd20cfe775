//! `tokio-uring`: every operation is an entry of its own, waited for before the next is made.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use tokio_uring::Runtime;
use tokio_uring::fs::{self, File, OpenOptions};

use super::{Entry, Writer, temp_beside};
use crate::cell::{Cell, parent};

/// Files at once: as many as ringseal has threads for.
const IN_FLIGHT: usize = 64;

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry::new(
        "tokio_uring",
        "uring",
        "tokio-uring, operation by operation, up to 64 files at once on one thread",
        || {
            let runtime = Runtime::new(&tokio_uring::builder());
            Ok(Box::new(Tasks(runtime.context("start a tokio-uring runtime")?)))
        },
    )]
}

async fn replace(target: &Path, bytes: Bytes) -> Result<()> {
    let temp = temp_beside(target);
    let file = OpenOptions::new().write(true).create_new(true).open(&temp).await?;
    file.write_all_at(bytes, 0).await.0?;
    file.sync_all().await?;
    file.close().await?;
    fs::rename(&temp, target).await?;
    let directory = File::open(parent(target)).await?;
    directory.sync_all().await?;
    directory.close().await?;
    Ok(())
}

struct Tasks(Runtime);

impl Writer for Tasks {
    fn save(&mut self, cell: &Cell) -> Result<()> {
        self.0.block_on(
            stream::iter(cell.pairs().map(|(path, bytes)| Ok(replace(path, bytes.clone()))))
                .try_buffer_unordered(IN_FLIGHT)
                .try_for_each(|()| async { Ok(()) }),
        )
    }
}
