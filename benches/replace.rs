//! Saving one 1 KiB state, and a hundred, against `std::fs` and `tokio::fs` doing the same five
//! steps: create, write, sync, rename, sync the directory.
//!
//! ```text
//! RINGSEAL_BENCH_DIR=/mnt/ext4 cargo bench --bench replace
//! ```
//!
//! The directory is that of the environment variable, or a temporary one. Machines are noisy and
//! disks drift, so every measurement is interleaved: each iteration runs every contender once, and
//! counts only its own time. Before criterion's figures comes a table of medians in which all are
//! counted in the same rounds: its ratios are the ones to compare.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringseal::{Engine, Writer};
use tokio::runtime::Runtime;

const STATE: [u8; 1024] = [b'x'; 1024];
const MANY: usize = 100;

/// The five steps, as one writes them by hand.
fn std_replace(target: &Path) -> io::Result<()> {
    let temp = target.with_extension("tmp");
    let mut file = File::create_new(&temp)?;
    file.write_all(&STATE)?;
    file.sync_all()?;
    fs::rename(&temp, target)?;
    File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
}

async fn tokio_replace(target: PathBuf) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let temp = target.with_extension("tmp");
    let mut file = tokio::fs::File::create_new(&temp).await?;
    file.write_all(&STATE).await?;
    file.sync_all().await?;
    tokio::fs::rename(&temp, &target).await?;
    let parent = target.parent().unwrap_or(Path::new("."));
    tokio::fs::File::open(parent).await?.sync_all().await
}

/// A contender: its name, and one round of it.
type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Runs every contender in every round, each round in another order, and prints the medians.
fn print_medians(title: &str, rounds: usize, contenders: &mut [Contender<'_>]) {
    let count = contenders.len();
    let mut times = vec![Vec::with_capacity(rounds); count];
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = 1_u64;
    for _ in 0..rounds {
        for last in (1..count).rev() {
            // Knuth's MMIX generator: good enough to shuffle six, and the same in every run.
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            order.swap(last, (random >> 33) as usize % (last + 1));
        }
        for &index in &order {
            let start = Instant::now();
            contenders[index].1();
            times[index].push(start.elapsed());
        }
    }
    let medians = times.iter_mut().map(|times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6
    });
    let medians: Vec<f64> = medians.collect();
    println!("{title}, medians of {rounds} rounds:");
    for ((name, _), median) in contenders.iter().zip(&medians) {
        println!(
            "  {name:28} {median:10.1} us   {:6.3} of {}",
            median / medians[0],
            contenders[0].0
        );
    }
}

fn interleaved(
    criterion: &mut Criterion,
    group: &str,
    rounds: usize,
    mut contenders: Vec<Contender<'_>>,
) {
    print_medians(group, rounds, &mut contenders);
    let mut group = criterion.benchmark_group(group);
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for counted in 0..contenders.len() {
        let name = contenders[counted].0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut time = Duration::ZERO;
                for _ in 0..iterations {
                    for (index, (_, round)) in contenders.iter_mut().enumerate() {
                        let start = Instant::now();
                        round();
                        if index == counted {
                            time += start.elapsed();
                        }
                    }
                }
                time
            });
        });
    }
    group.finish();
}

fn bench(criterion: &mut Criterion) {
    let temp = match std::env::var_os("RINGSEAL_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .expect("the directory to measure on");
    let target = |name: &str| {
        let dir = temp.path().join(name);
        fs::create_dir_all(&dir).expect("a directory to save into");
        dir.join("state.json")
    };
    let targets: Vec<PathBuf> = (0..MANY).map(|id| target(&id.to_string())).collect();
    let one = targets[0].clone();

    let runtime = Runtime::new().expect("a tokio runtime");
    let writer = |engine| Writer::builder().engine(engine).build().expect("a writer");
    let auto = writer(Engine::Auto);
    let ring = writer(Engine::Uring);
    let threads = writer(Engine::Threads);
    println!("saving below {}; engine: {}", temp.path().display(), auto.engine());

    let all = |writer: &Writer| {
        let requests: Vec<_> = targets.iter().map(|path| (path.clone(), &STATE[..])).collect();
        for answer in writer.replace_all_blocking(requests) {
            black_box(answer.expect("saved"));
        }
    };
    interleaved(
        criterion,
        "one file",
        500,
        vec![
            ("std::fs", Box::new(|| std_replace(&one).expect("saved"))),
            (
                "ringseal::replace",
                Box::new(|| {
                    black_box(ringseal::replace(&one, STATE).expect("saved"));
                }),
            ),
            (
                "Writer::replace_blocking",
                Box::new(|| {
                    black_box(auto.replace_blocking(&one, &STATE[..]).expect("saved"));
                }),
            ),
            (
                "tokio::fs",
                Box::new(|| {
                    runtime.block_on(tokio_replace(one.clone())).expect("saved");
                }),
            ),
            (
                "Writer::replace",
                Box::new(|| {
                    black_box(runtime.block_on(auto.replace(&one, &STATE[..])).expect("saved"));
                }),
            ),
            (
                "Writer::replace (ring)",
                Box::new(|| {
                    black_box(runtime.block_on(ring.replace(&one, &STATE[..])).expect("saved"));
                }),
            ),
            (
                "Writer::replace (threads)",
                Box::new(|| {
                    black_box(runtime.block_on(threads.replace(&one, &STATE[..])).expect("saved"));
                }),
            ),
        ],
    );
    interleaved(
        criterion,
        "100 files",
        30,
        vec![
            (
                "std::fs",
                Box::new(|| {
                    targets.iter().for_each(|path| std_replace(path).expect("saved"));
                }),
            ),
            (
                "tokio::fs, a task each",
                Box::new(|| {
                    runtime.block_on(async {
                        let tasks: Vec<_> = targets
                            .iter()
                            .map(|path| tokio::spawn(tokio_replace(path.clone())))
                            .collect();
                        for task in tasks {
                            task.await.expect("not cancelled").expect("saved");
                        }
                    });
                }),
            ),
            ("Writer::replace_all (ring)", Box::new(|| all(&ring))),
            ("Writer::replace_all (threads)", Box::new(|| all(&threads))),
        ],
    );
}

criterion_group!(benches, bench);
criterion_main!(benches);
