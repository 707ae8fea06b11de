//! All reference log-probabilities that a loss requires.

use std::collections::BTreeMap;
use std::path::Path;

use distributed::ProcessGroup;
use policy_model::Policy;
use pref_data::TokenPair;
use tch::Kind;

use super::SequenceLogps;
use super::cache::{ReferenceModel, ReferencePass, ReferenceTable};
use crate::context::Progress;
use crate::error::TrainError;
use crate::kl_pairs::KlPairs;
use crate::objective::Loss;
use crate::recipe::Recipe;
use crate::scoring::Scoring;

/// The reference's passes: over the pairs of the data, and for KTO also over their [`KlPairs`].
pub(crate) struct ReferencePasses<'a> {
    pairs: &'a [TokenPair],
    own: ReferencePass,
    kl_pairs: Option<(Vec<TokenPair>, ReferencePass)>,
}

impl<'a> ReferencePasses<'a> {
    /// Describes the passes over `pairs` for `recipe` and `loss`. Their files are in the folder `cache`, or by default
    /// in the recipe's output folder.
    pub(crate) fn new(
        (recipe, loss): (&Recipe, &Loss),
        reference: &ReferenceModel,
        kind: Kind,
        scoring: Scoring,
        pairs: &'a [TokenPair],
        cache: Option<&Path>,
    ) -> Self {
        let scoring = (scoring, loss.pairwise().and_then(|loss| loss.ld_alpha));
        let over =
            |pairs: &[TokenPair]| ReferencePass::new(recipe, reference.clone(), kind, scoring, pairs, cache);
        let kl_pairs = match loss {
            Loss::Pair(_) => None,
            Loss::Kto(_) => {
                let shifted = KlPairs::shifted(pairs, recipe.main_data().max_length);
                let pass = over(&shifted);
                Some((shifted, pass))
            }
        };
        Self { pairs, own: over(pairs), kl_pairs }
    }

    /// Returns the number of scored sequences: two per pair, and two more per KL pair.
    pub(crate) fn sequences(&self) -> usize {
        self.own.sequences() + self.kl_pairs.as_ref().map_or(0, |(_, pass)| pass.sequences())
    }

    /// Returns the number of tokens that are to be scored; 0 if all log-probabilities are cached.
    pub(crate) fn tokens_left(&self) -> usize {
        let own = (self.pairs, &self.own);
        let all = [own].into_iter().chain(self.kl_pairs.iter().map(|(pairs, pass)| (&**pairs, pass)));
        let left = all.filter(|(_, pass)| pass.cached().is_none());
        left.flat_map(|(pairs, _)| pairs).map(TokenPair::unique_tokens).sum()
    }

    /// Returns the reference's log-probabilities, read by rank 0 or computed by all ranks and cached. `policy` is
    /// that before training.
    pub(crate) fn tables(
        self,
        policy: &Policy,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<ReferenceTables, TrainError> {
        let own = self.own.table(policy, group, progress)?;
        let kl_pairs = match self.kl_pairs {
            Some((pairs, pass)) => Some((pairs, pass.table(policy, group, progress)?)),
            None => None,
        };
        Ok(ReferenceTables { own, kl_pairs })
    }
}

/// Reference log-probabilities of all pairs of the data.
pub(crate) struct ReferenceTables {
    own: ReferenceTable,
    kl_pairs: Option<(Vec<TokenPair>, ReferenceTable)>,
}

impl ReferenceTables {
    /// Returns those of `pairs`, which must be among the tables' pairs, flipped or not.
    pub(crate) fn of(&self, pairs: &[TokenPair]) -> (SequenceLogps, Option<KlPairs>) {
        let kl_pairs = self.kl_pairs.as_ref().map(|(all, table)| {
            let by_id: BTreeMap<&str, &TokenPair> = all.iter().map(|pair| (pair.id.as_str(), pair)).collect();
            let these: Vec<TokenPair> = pairs.iter().map(|pair| by_id[pair.id.as_str()].clone()).collect();
            let reference = table.of(&these);
            KlPairs::new(these, reference)
        });
        (self.own.of(pairs), kl_pairs)
    }
}
