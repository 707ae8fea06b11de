//! The reference's log-probabilities of unpaired completions.

use std::fs;
use std::path::{Path, PathBuf};

use distributed::{ProcessGroup, hash_sequences};
use policy_model::Policy;
use pref_data::{Dialogue, TokenCompletion};
use tch::Kind;

use super::cache::{ReferenceModel, decode, encode, head_name, kind_name, padding_name};
use super::{logps_of_dialogues, passes_over};
use crate::context::Progress;
use crate::error::TrainError;
use crate::recipe::Recipe;
use crate::scoring::Scoring;
use crate::unpaired::{Mismatched, dialogues};

/// The reference's pass over the examples and their mismatched completions, and the file of its result.
pub(crate) struct CompletionPass {
    reference: ReferenceModel,
    kind: Kind,
    scoring: Scoring,
    /// The examples, then the mismatched ones.
    dialogues: Vec<Dialogue>,
    examples: usize,
    file: PathBuf,
    may_read: bool,
}

impl CompletionPass {
    /// Describes the pass over `completions`. Its file is in the folder `cache`, or by default in the recipe's output
    /// folder.
    pub(crate) fn new(
        recipe: &Recipe,
        reference: ReferenceModel,
        kind: Kind,
        scoring: Scoring,
        completions: &[TokenCompletion],
        cache: Option<&Path>,
    ) -> Self {
        let mut dialogues = dialogues(completions);
        let examples = dialogues.len();
        dialogues.extend(Mismatched::rotated(
            completions,
            recipe.train.batch_size,
            recipe.main_data().max_length,
        ));
        let mut hasher = blake3::Hasher::new();
        let [kind_name, head] = [kind_name(kind), head_name(scoring.head)];
        let padding = padding_name(scoring.padding);
        let version = format!("reference log-probabilities of completions v1 {kind_name} {padding} {head}");
        hasher.update(version.as_bytes()).update(reference.digest().as_bytes());
        hash_sequences(dialogues.iter().map(Dialogue::ids), &mut hasher);
        // The prompt of each example, which the ids alone do not show.
        hash_sequences(completions.iter().map(|one| &*one.prompt), &mut hasher);
        let name = format!("{}.logps", &hasher.finalize().to_hex()[..32]);
        let file = cache.unwrap_or(&recipe.output.dir).join("reference").join(name);
        Self { reference, kind, scoring, dialogues, examples, file, may_read: recipe.speed.reference_cache }
    }

    /// Returns the number of scored sequences: two per example.
    pub(crate) fn sequences(&self) -> usize {
        self.dialogues.len()
    }

    /// Returns the number of tokens that are to be scored; 0 if the log-probabilities are cached.
    pub(crate) fn tokens_left(&self) -> usize {
        if self.cached().is_some() { 0 } else { self.dialogues.iter().map(|one| one.ids().len()).sum() }
    }

    /// Reads the cached log-probabilities. A damaged file is ignored.
    fn cached(&self) -> Option<Vec<f64>> {
        if !self.may_read {
            return None;
        }
        decode(&fs::read(&self.file).ok()?).filter(|logps| logps.len() == self.dialogues.len())
    }

    /// Returns the log-probabilities of the examples and the mismatched examples, read by rank 0 or computed by all
    /// ranks and cached. `policy` is that before training.
    pub(crate) fn scores(
        mut self,
        policy: &Policy,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<f64>, Mismatched), TrainError> {
        let own = if group.is_main() { self.cached() } else { None };
        let cached = group.broadcast_from_rank0(own.map_or(Vec::new(), |logps| encode(&logps)))?;
        let mut logps = match decode(&cached) {
            Some(logps) => logps,
            None => {
                let reference = self.reference.load(policy, self.kind, group)?;
                self.compute(&reference, group, progress)?
            }
        };
        let mismatched = logps.split_off(self.examples);
        Ok((logps, Mismatched::new(self.dialogues.split_off(self.examples), mismatched)))
    }

    fn compute(
        &self,
        reference: &Policy,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<Vec<f64>, TrainError> {
        let mut logps = vec![0.0; self.dialogues.len()];
        let lengths: Vec<usize> = self.dialogues.iter().map(|one| one.ids().len()).collect();
        progress.begin("reference log-probabilities", lengths.len() as u64);
        let mut done = 0;
        for (number, pass) in passes_over(&lengths).iter().enumerate() {
            done += pass.len();
            if !group.owns(number) {
                continue;
            }
            let dialogues: Vec<&Dialogue> = pass.iter().map(|&i| &self.dialogues[i]).collect();
            for (&i, logp) in pass.iter().zip(logps_of_dialogues(reference, &dialogues, self.scoring)?) {
                logps[i] = logp;
            }
            progress.advance(done as u64, "");
        }
        reference.finish_passes()?;
        // Completions of other ranks are 0 here.
        group.all_reduce_sum(&mut logps)?;
        progress.end();
        if group.is_main() {
            files::write(&self.file, &encode(&logps)).map_err(TrainError::io("cannot write", &self.file))?;
        }
        Ok(logps)
    }
}
