//! The key-value cache of generation.

use tch::Tensor;

use crate::attention::{AttentionBackend, KeyValues, Packed, ScoreRule};
use crate::error::PolicyError;
use crate::policy::Policy;

/// Attention of packed prompts, whose keys and values fill the cache.
pub(crate) struct Prefill<'a> {
    pub(crate) packed: Packed,
    /// Tokens of each prompt.
    pub(crate) lengths: Vec<i64>,
    /// Columns of the cache up to the last tokens.
    pub(crate) columns: i64,
    pub(crate) cache: &'a mut Cache,
}

impl AttentionBackend for Prefill<'_> {
    fn attend(
        &mut self,
        layer: usize,
        rule: ScoreRule,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<Tensor, PolicyError> {
        self.cache.fill(layer, &self.lengths, self.columns, [&k, &v]);
        self.packed.attend(layer, rule, q, k, v)
    }
}

/// Keys and values `[B, kv_heads, columns, head_dim]` of each layer, allocated once for the longest continuation.
pub(crate) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    windows: Vec<Option<i64>>,
    /// Columns in use before the current forward pass.
    pub(crate) filled: i64,
}

impl Cache {
    pub(crate) fn new(policy: &Policy, rows: usize, columns: i64) -> Result<Self, PolicyError> {
        let config = policy.config();
        let shape = [rows as i64, config.kv_heads as i64, columns, config.head_dim as i64];
        // Unwritten columns must be finite: a weight of 0 times NaN is NaN.
        let zeros = || Tensor::f_zeros(shape, (policy.kind(), policy.device()));
        let layers: Result<Vec<_>, _> = (0..config.layers).map(|_| Ok((zeros()?, zeros()?))).collect();
        let action = || format!("allocate keys and values of {rows} sequences of {columns} tokens");
        Ok(Self {
            layers: layers.map_err(|source| PolicyError::torch(action())(source))?,
            windows: (0..config.layers)
                .map(|layer| config.window(layer).map(|window| window as i64))
                .collect(),
            filled: 0,
        })
    }

    /// Stores the keys and values `[N, kv_heads, head_dim]` of prompts of these lengths, aligned on the right of `columns`.
    fn fill(&mut self, layer: usize, lengths: &[i64], columns: i64, [keys, values]: [&Tensor; 2]) {
        for (all, new) in [(&self.layers[layer].0, keys), (&self.layers[layer].1, values)] {
            for (row, (new, length)) in new.split_with_sizes(lengths, 0).iter().zip(lengths).enumerate() {
                let place = all.select(0, row as i64).narrow(1, columns - length, *length);
                place.shallow_clone().copy_(&new.transpose(0, 1));
            }
        }
        if layer + 1 == self.layers.len() {
            self.filled = columns;
        }
    }

    /// Keeps the given rows and adds those of `other`, aligned on the right of `filled` columns, with capacity for `columns`.
    pub(crate) fn replace(
        &mut self,
        rows: &Tensor,
        other: Option<Self>,
        filled: i64,
        columns: i64,
    ) -> Result<(), PolicyError> {
        let (kept, own) = (rows.size()[0], self.filled);
        let mut others = other.map(|other| (other.filled, other.layers.into_iter()));
        let place = |old: &Tensor, added: Option<(i64, Tensor)>| -> Result<Tensor, tch::TchError> {
            let mut shape = old.size();
            (shape[0], shape[2]) = (kept + added.as_ref().map_or(0, |(_, added)| added.size()[0]), columns);
            let new = Tensor::f_empty(shape, (old.kind(), old.device()))?;
            // Copies the last of `width` columns, and clears those before them: unwritten columns must be finite.
            let copy = |first: i64, from: &Tensor, width: i64| {
                let (rows, last) = (new.narrow(0, first, from.size()[0]), width.min(filled));
                let _ = rows.narrow(2, 0, filled - last).zero_();
                rows.narrow(2, filled - last, last).copy_(&from.narrow(2, width - last, last));
            };
            if kept > 0 {
                copy(0, &old.narrow(2, 0, own).f_index_select(0, rows)?, own);
            }
            if let Some((width, added)) = added {
                copy(kept, &added, width);
            }
            Ok(new)
        };
        for pair in &mut self.layers {
            let (keys, values) = match &mut others {
                Some((width, layers)) => {
                    layers.next().map(|(keys, values)| ((*width, keys), (*width, values))).unzip()
                }
                None => (None, None),
            };
            for (tensor, added) in [(&mut pair.0, keys), (&mut pair.1, values)] {
                *tensor = place(tensor, added).map_err(PolicyError::torch("extend the cache".to_owned()))?;
            }
        }
        self.filled = filled;
        Ok(())
    }
}

impl KeyValues for Cache {
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        let added = keys.size()[2];
        let all = self.filled + added;
        let (all_keys, all_values) = &self.layers[layer];
        all_keys.narrow(2, self.filled, added).copy_(&keys);
        all_values.narrow(2, self.filled, added).copy_(&values);
        let first = match self.windows[layer] {
            // The queries of a prompt have a window each, by their masks; a single query has one window.
            Some(window) if added == 1 => (all - window).max(0),
            _ => 0,
        };
        let seen = (all_keys.narrow(2, first, all - first), all_values.narrow(2, first, all - first));
        if layer + 1 == self.layers.len() {
            self.filled = all;
        }
        seen
    }
}
