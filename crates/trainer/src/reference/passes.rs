//! All that a loss asks a reference about a set of pairs.

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
use crate::mismatched::Mismatched;
use crate::objective::Loss;
use crate::recipe::Recipe;
use crate::scoring::Scoring;

/// The reference's passes over the pairs of the data: over the pairs themselves, and where the loss is KTO's over
/// [`Mismatched`] ones too.
pub(crate) struct ReferencePasses<'a> {
    pairs: &'a [TokenPair],
    own: ReferencePass,
    mismatched: Option<(Vec<TokenPair>, ReferencePass)>,
}

impl<'a> ReferencePasses<'a> {
    /// The passes over `pairs` as `recipe` and `loss` ask for them, kept below the folder `cache`, or else below the recipe's
    /// output folder.
    pub(crate) fn new(
        (recipe, loss): (&Recipe, &Loss),
        reference: &ReferenceModel,
        kind: Kind,
        scoring: Scoring,
        pairs: &'a [TokenPair],
        cache: Option<&Path>,
    ) -> Self {
        let over =
            |pairs: &[TokenPair]| ReferencePass::new(recipe, reference.clone(), kind, scoring, pairs, cache);
        let mismatched = match loss {
            Loss::Pair(_) => None,
            Loss::Kto(_) => {
                let shifted = Mismatched::shifted(pairs, recipe.data.max_length);
                let pass = over(&shifted);
                Some((shifted, pass))
            }
        };
        Self { pairs, own: over(pairs), mismatched }
    }

    /// How many sequences are scored: two a pair, and as many mismatched ones.
    pub(crate) fn sequences(&self) -> usize {
        self.own.sequences() + self.mismatched.as_ref().map_or(0, |(_, pass)| pass.sequences())
    }

    /// What no earlier run has scored.
    pub(crate) fn left(&self) -> Vec<TokenPair> {
        let own = (self.pairs, &self.own);
        let all = [own].into_iter().chain(self.mismatched.iter().map(|(pairs, pass)| (&**pairs, pass)));
        all.filter(|(_, pass)| pass.cached().is_none()).flat_map(|(pairs, _)| pairs.to_vec()).collect()
    }

    /// What the reference says, found by rank 0 or computed by all ranks and kept. `policy` comes from the folder `model`, without
    /// adapters: where that is the reference's too, nothing is loaded twice.
    pub(crate) fn tables(
        self,
        policy: &Policy,
        model: &Path,
        group: &ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<ReferenceTables, TrainError> {
        let own = self.own.table(policy, model, group, progress)?;
        let mismatched = match self.mismatched {
            Some((pairs, pass)) => Some((pairs, pass.table(policy, model, group, progress)?)),
            None => None,
        };
        Ok(ReferenceTables { own, mismatched })
    }
}

/// What a reference says of all pairs of the data.
pub(crate) struct ReferenceTables {
    own: ReferenceTable,
    mismatched: Option<(Vec<TokenPair>, ReferenceTable)>,
}

impl ReferenceTables {
    /// Of `pairs`, which are among those that the tables were made of, flipped or not.
    pub(crate) fn of(&self, pairs: &[TokenPair]) -> (SequenceLogps, Option<Mismatched>) {
        let mismatched = self.mismatched.as_ref().map(|(all, table)| {
            let by_id: BTreeMap<&str, &TokenPair> = all.iter().map(|pair| (pair.id.as_str(), pair)).collect();
            let these: Vec<TokenPair> = pairs.iter().map(|pair| by_id[pair.id.as_str()].clone()).collect();
            let reference = table.of(&these);
            Mismatched::new(these, reference)
        });
        (self.own.of(pairs), mismatched)
    }
}
