//! Runs of several processes: a test restarts its own binary for each rank, which runs [`Ranks::start`].

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use distributed::{Placement, ProcessGroup};
use policy_model::{ModelConfig, Policy};
use sandbox::Size;
use seeds::Seeds;
use tch::{Device, Kind};
use test_support::free_port;
use trainer::recipe::Recipe;
use trainer::{Clock, Context, Outcome, RunDir, Silent, Start, StepMetrics, TrainError, run};

/// Set for ranks: recipe overrides, one `section.key=value` per line.
const CHANGES: &str = "TRAINER_TEST_CHANGES";
/// Set for ranks: the timeout of collectives, in seconds.
const TIMEOUT: &str = "TRAINER_TEST_TIMEOUT";
/// Set for a rank that requests a stop once this number of steps is logged.
const STOP_AFTER: &str = "TRAINER_TEST_STOP_AFTER";
/// Exit status of a rank that was stopped, and of one that failed.
pub(crate) const STOPPED: i32 = 130;
pub(crate) const FAILED: i32 = 2;

/// A folder with a small model of the sandbox's type, preferences, held-out preferences, and a recipe.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let tokenizer = bench.path("tokenizer");
        fs::create_dir(&tokenizer).unwrap();
        let seeds = Seeds::new(0);
        let vocabulary = sandbox::write_tokenizer_folder(&tokenizer, &seeds).unwrap();
        let config = ModelConfig::from_json(sandbox::model_config(Size::Small, vocabulary)).unwrap();
        let policy = Policy::initialize(config, &seeds, Kind::Float, Device::Cpu).unwrap();
        policy.save(&bench.path("model"), Kind::Float, Some(&tokenizer)).unwrap();
        // As a model from elsewhere, which tests change.
        files::unseal(&bench.path("model")).unwrap();
        bench.write_pairs("pairs.jsonl", 22);
        bench.write_pairs("held-out.jsonl", 5);
        let recipe = "[model]\npath = \"model\"\ndtype = \"float32\"\n\
            [data]\npath = \"pairs.jsonl\"\neval_path = \"held-out.jsonl\"\nflip_rate = 0.2\n\
            [train]\nepochs = 2\nbatch_size = 8\nmicro_batch_size = 3\nlearning_rate = 1e-3\nthreads = 1\n\
            checkpoints = [0.5, 1.0]\n[watch]\nanswers = 3\nanswer_tokens = 6\n[output]\ndir = \"out\"\n";
        fs::write(bench.path("recipe.toml"), recipe).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pairs of very different lengths.
    pub(crate) fn write_pairs(&self, name: &str, count: usize) {
        let text = |words: usize, first: usize| {
            let word = |k: usize| ["a ", "b ", "c ", "d ", "e "][(first + k * k) % 5];
            (0..words).map(word).collect::<String>() + "."
        };
        let line = |k: usize| {
            let (prompt, chosen) = (format!("Say {}", text(1 + k * 7 % 11, k)), text(1 + k * 5 % 17, k + 1));
            let pair = serde_json::json!({
                "prompt": prompt, "chosen": chosen, "rejected": text(1 + k * 3 % 13, k + 2),
            });
            pair.to_string() + "\n"
        };
        fs::write(self.path(name), (0..count).map(line).collect::<String>()).unwrap();
    }

    /// Unpaired preferences of very different lengths.
    pub(crate) fn write_unpaired(&self, name: &str, count: usize) {
        let line = |k: usize| {
            let text = |words: usize| "a b c d e ".repeat(words)[..2 * words].to_owned();
            let (prompt, completion) =
                (format!("Say {}", text(1 + k * 7 % 11)), format!("{}.", text(1 + k * 5 % 17)));
            let row = serde_json::json!({"prompt": prompt, "completion": completion, "label": k % 3 != 1});
            row.to_string() + "\n"
        };
        fs::write(self.path(name), (0..count).map(line).collect::<String>()).unwrap();
    }

    /// Returns the metrics of a run's steps.
    pub(crate) fn metrics(&self, out: &str) -> Vec<StepMetrics> {
        RunDir::open_finished(&self.path(out)).unwrap().read_metrics().unwrap()
    }

    /// Returns the weights of a finished run.
    pub(crate) fn weights(&self, out: &str) -> Vec<f32> {
        let policy = Policy::load(&self.path(out).join("model"), Kind::Float, Device::Cpu).unwrap();
        let flat = |tensor: &tch::Tensor| Vec::<f32>::try_from(tensor.view(-1)).unwrap();
        policy.parameters().iter().flat_map(|(_, tensor)| flat(tensor)).collect()
    }
}

/// One process of a run.
#[derive(Clone, Debug)]
pub(crate) struct Rank {
    folder: PathBuf,
    variables: Vec<(String, String)>,
    changes: Vec<String>,
}

impl Rank {
    /// Creates rank `index` of `world_size` in a bench's folder; ranks connect at `port`.
    pub(crate) fn new(bench: &Bench, index: usize, world_size: usize, port: u16) -> Self {
        let place = [
            ("RANK", index.to_string()),
            ("WORLD_SIZE", world_size.to_string()),
            ("MASTER_ADDR", "127.0.0.1".to_owned()),
            ("MASTER_PORT", port.to_string()),
            (TIMEOUT, "60".to_owned()),
        ];
        let variables = place.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { folder: bench.folder.path().to_owned(), variables, changes: Vec::new() }
    }

    /// Overrides a recipe key.
    pub(crate) fn with(mut self, change: &str) -> Self {
        self.changes.push(change.to_owned());
        self
    }

    /// Requests a stop once this number of steps is logged.
    pub(crate) fn stopped_after(self, steps: usize) -> Self {
        self.variable(STOP_AFTER, steps)
    }

    /// Sets the timeout in seconds.
    pub(crate) fn waiting(self, seconds: f64) -> Self {
        self.variable(TIMEOUT, seconds)
    }

    fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the process, as the test of this name.
    pub(crate) fn start(&self, test: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env(CHANGES, self.changes.join("\n"))
            .env("OMP_NUM_THREADS", "1")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// All ranks of a run on one bench.
pub(crate) fn ranks(bench: &Bench, world_size: usize) -> Vec<Rank> {
    let port = free_port();
    (0..world_size).map(|index| Rank::new(bench, index, world_size, port)).collect()
}

/// Starts processes that become ranks in the test of this name, and waits for all of them.
pub(crate) fn outputs(test: &str, ranks: &[Rank]) -> Vec<Output> {
    let children: Vec<Child> = ranks.iter().map(|rank| rank.start(test)).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Like [`outputs`], and asserts that all ranks exit with status `code`.
pub(crate) fn succeed(test: &str, ranks: &[Rank], code: i32) {
    for output in outputs(test, ranks) {
        assert_eq!(output.status.code(), Some(code), "{}", words(&output));
    }
}

/// Returns the error of each rank; all of them fail.
pub(crate) fn fail(test: &str, ranks: &[Rank]) -> Vec<String> {
    let said = outputs(test, ranks).into_iter().map(|output| {
        assert_eq!(output.status.code(), Some(FAILED), "{}", words(&output));
        words(&output)
    });
    said.collect()
}

/// Returns the error message in a process's output.
pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs as a rank and exits, if this process was started as one.
#[expect(clippy::print_stderr, reason = "a rank prints its error")]
pub(crate) fn become_rank() {
    let Ok(changes) = std::env::var(CHANGES) else { return };
    let changes: Vec<String> = changes.lines().map(str::to_owned).collect();
    let code = match train(&changes) {
        Ok(Outcome::Finished) => 0,
        Ok(Outcome::Stopped(_)) => STOPPED,
        Err(error) => {
            let mut words = format!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                words += &format!(": {error}");
                cause = error.source();
            }
            eprintln!("{words}");
            FAILED
        }
    };
    std::process::exit(code);
}

fn train(changes: &[String]) -> Result<Outcome, TrainError> {
    let variable = |name: &str| std::env::var(name).ok();
    let recipe = Recipe::load(Path::new("recipe.toml"), changes)?;
    let timeout = variable(TIMEOUT).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs_f64);
    let group = match Placement::from_environment(variable)? {
        Some(place) => ProcessGroup::join(&place, Device::Cpu, timeout.unwrap())?,
        None => ProcessGroup::single(),
    };
    let stop: &'static AtomicBool = Box::leak(Box::default());
    if let Some(steps) = variable(STOP_AFTER) {
        let (metrics, steps) = (recipe.output.dir.join("metrics.jsonl"), steps.parse().unwrap());
        thread::spawn(move || {
            while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < steps {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    let (clock, mut progress) = (Started(Instant::now()), Silent);
    let mut context = Context { clock: &clock, progress: &mut progress, stop, group, cache: None };
    Ok(run(&recipe, Start::FreshOrResume, &mut context)?.outcome)
}

struct Started(Instant);

impl Clock for Started {
    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn unix_seconds(&self) -> f64 {
        0.0
    }
}
