//! Token batches: one plain layout of integers that a model turns into tensors.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::tokenize::{Dialogue, TokenPair};

/// The layout of sequences in the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One sequence a row; the prompt is repeated for chosen and rejected.
    Separate,
    /// One pair a row, `[prompt | chosen | rejected]`: the prompt is computed once.
    SharedPrompt,
}

/// The padding of rows of different lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// This id on the right, up to the length of the longest row.
    Right(u32),
    /// No padding: rows are concatenated.
    None,
}

/// Tokens of the parts of a row: a trunk, and branches that each attend to the trunk and to themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowParts {
    /// The prompt if branches follow it, or else a whole sequence.
    pub trunk: usize,
    /// Chosen and rejected after a shared prompt; otherwise none.
    pub branches: Vec<usize>,
}

/// Sequences laid out in rows.
///
/// `scored`, `targets` and `sequence` map hidden states to the tokens that they predict. The three have the same length and
/// the order of the sequences and their tokens. `targets` and `sequence` do not depend on the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// The rows, without their padding.
    pub rows: Vec<RowParts>,
    /// Tokens of the longest row, or of every row with padding.
    pub width: usize,
    /// Token ids, row by row: `[rows * width]` with the pad id on the right, or `[tokens]` without padding.
    pub ids: Vec<i64>,
    /// Rotary positions, like `ids`, 0 on padding. A rejected branch continues the positions of its prompt.
    pub positions: Vec<i64>,
    /// Like `ids`: 0 trunk (prompt, padding, and all of a row that has no branches), 1 chosen, 2 rejected.
    /// A token attends to the earlier tokens of the trunk and of its own branch.
    pub branches: Vec<i64>,
    /// For each scored token the index into `ids` of the hidden state that predicts it.
    pub scored: Vec<i64>,
    /// The scored token ids.
    pub targets: Vec<i64>,
    /// The sequence that each scored token belongs to, ascending.
    pub sequence: Vec<i64>,
    /// The number of sequences. Of n pairs, 0..n are the chosen and n..2n the rejected.
    pub sequences: usize,
    /// Scored tokens of each sequence, `[sequences]`.
    pub lengths: Vec<i64>,
    /// The layout of the sequences in the rows.
    pub layout: Layout,
    /// The padding of the rows.
    pub padding: Padding,
    /// Tokens that are not padding.
    pub tokens: usize,
}

impl TokenBatch {
    /// Creates the batch of some pairs: sequence `i` is the `i`-th pair's chosen response, sequence `n + i` its rejected one.
    ///
    /// ```
    /// use pref_data::{Layout, Padding, TokenBatch, TokenPair};
    ///
    /// let pair = TokenPair { id: "1".into(), prompt: vec![7, 8], chosen: vec![3, 4], rejected: vec![5], flipped: false };
    /// let batch = TokenBatch::pairs(&[&pair], Layout::SharedPrompt, Padding::None)?;
    /// assert_eq!(batch.ids, [7, 8, 3, 4, 5]);
    /// assert_eq!(batch.positions, [0, 1, 2, 3, 2]);
    /// assert_eq!(batch.branches, [0, 0, 1, 1, 2]);
    /// // The prompt's last hidden state, at 1, predicts the first token of both responses.
    /// assert_eq!(batch.scored, [1, 2, 1]);
    /// assert_eq!(batch.targets, [3, 4, 5]);
    /// assert_eq!(batch.sequence, [0, 0, 1]);
    /// # Ok::<(), pref_data::DataError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DataError::EmptyBatch`] without pairs, [`DataError::EmptyPrompt`] and [`DataError::EmptyResponse`] for a
    /// pair that cannot be scored.
    pub fn pairs(pairs: &[&TokenPair], layout: Layout, padding: Padding) -> Result<Self, DataError> {
        if pairs.is_empty() {
            return Err(DataError::EmptyBatch);
        }
        for pair in pairs {
            pair.check()?;
        }
        let branches = [1_i64, 2];
        match layout {
            Layout::Separate => {
                let responses = branches.into_iter().flat_map(|b| pairs.iter().map(move |pair| (*pair, b)));
                let sequences: Vec<(&TokenPair, i64)> = responses.collect();
                let whole = |&(pair, branch): &(&TokenPair, i64)| {
                    RowParts::sequence(pair.prompt.len() + pair.response(branch).len())
                };
                let (mut batch, starts) = Self::empty(sequences.iter().map(whole).collect(), layout, padding);
                for (&(pair, branch), start) in sequences.iter().zip(starts) {
                    let response = start + pair.prompt.len();
                    batch.put(start, 0, 0, &pair.prompt);
                    batch.put(response, pair.prompt.len(), 0, pair.response(branch));
                    batch.score(response - 1, response, pair.response(branch));
                }
                Ok(batch)
            }
            Layout::SharedPrompt => {
                let rows = pairs.iter().map(|pair| RowParts {
                    trunk: pair.prompt.len(),
                    branches: vec![pair.chosen.len(), pair.rejected.len()],
                });
                let (mut batch, starts) = Self::empty(rows.collect(), layout, padding);
                for (pair, &start) in pairs.iter().zip(&starts) {
                    batch.put(start, 0, 0, &pair.prompt);
                    for branch in branches {
                        let at = start + pair.branch_start(branch);
                        batch.put(at, pair.prompt.len(), branch, pair.response(branch));
                    }
                }
                for branch in branches {
                    for (pair, &start) in pairs.iter().zip(&starts) {
                        let prompt_end = start + pair.prompt.len() - 1;
                        batch.score(prompt_end, start + pair.branch_start(branch), pair.response(branch));
                    }
                }
                Ok(batch)
            }
        }
    }

    /// Creates the batch of some dialogues, one a row, with their scored tokens.
    ///
    /// # Errors
    ///
    /// [`DataError::EmptyBatch`] without dialogues or where they hold no tokens.
    pub fn dialogues(dialogues: &[&Dialogue], padding: Padding) -> Result<Self, DataError> {
        let rows: Vec<RowParts> = dialogues.iter().map(|d| RowParts::sequence(d.ids().len())).collect();
        if rows.iter().all(|row| row.tokens() == 0) {
            return Err(DataError::EmptyBatch);
        }
        let (mut batch, starts) = Self::empty(rows, Layout::Separate, padding);
        for (dialogue, start) in dialogues.iter().zip(starts) {
            batch.put(start, 0, 0, dialogue.ids());
            let before = batch.targets.len();
            for (column, &id) in dialogue.ids().iter().enumerate() {
                if dialogue.scored()[column] {
                    batch.scored.push((start + column - 1) as i64);
                    batch.targets.push(i64::from(id));
                }
            }
            batch.close_sequence(before);
        }
        Ok(batch)
    }

    /// Creates rows of padding, and returns the start of each.
    fn empty(rows: Vec<RowParts>, layout: Layout, padding: Padding) -> (Self, Vec<usize>) {
        let width = rows.iter().map(RowParts::tokens).max().unwrap_or(0);
        let mut next = 0;
        let starts: Vec<usize> = rows
            .iter()
            .map(|row| {
                let start = next;
                next += if padding == Padding::None { row.tokens() } else { width };
                start
            })
            .collect();
        let fill = match padding {
            Padding::Right(id) => i64::from(id),
            Padding::None => 0,
        };
        let batch = Self {
            rows,
            width,
            ids: vec![fill; next],
            positions: vec![0; next],
            branches: vec![0; next],
            scored: Vec::new(),
            targets: Vec::new(),
            sequence: Vec::new(),
            sequences: 0,
            lengths: Vec::new(),
            layout,
            padding,
            tokens: 0,
        };
        (batch, starts)
    }

    /// Writes `ids` from the index `start`, with positions from `position`.
    fn put(&mut self, start: usize, position: usize, branch: i64, ids: &[u32]) {
        for (offset, &id) in ids.iter().enumerate() {
            self.ids[start + offset] = i64::from(id);
            self.positions[start + offset] = (position + offset) as i64;
            self.branches[start + offset] = branch;
        }
        self.tokens += ids.len();
    }

    /// Scores the response at `start`: `before` predicts its first token, and each of its tokens predicts the next.
    fn score(&mut self, before: usize, start: usize, response: &[u32]) {
        let first = self.targets.len();
        self.scored.push(before as i64);
        self.scored.extend((start..start + response.len() - 1).map(|index| index as i64));
        self.targets.extend(response.iter().map(|&id| i64::from(id)));
        self.close_sequence(first);
    }

    /// Adds the targets from `first` as a sequence.
    fn close_sequence(&mut self, first: usize) {
        let length = self.targets.len() - first;
        self.sequence.extend(std::iter::repeat_n(self.sequences as i64, length));
        self.lengths.push(length as i64);
        self.sequences += 1;
    }
}

impl RowParts {
    /// Returns a row of one sequence.
    fn sequence(tokens: usize) -> Self {
        Self { trunk: tokens, branches: Vec::new() }
    }

    /// Returns the number of tokens of the row.
    pub fn tokens(&self) -> usize {
        self.trunk + self.branches.iter().sum::<usize>()
    }
}

impl TokenPair {
    /// Returns the response on branch 1 (chosen) or 2 (rejected).
    fn response(&self, branch: i64) -> &[u32] {
        if branch == 1 { &self.chosen } else { &self.rejected }
    }

    /// Returns the start of a branch in `[prompt | chosen | rejected]`.
    fn branch_start(&self, branch: i64) -> usize {
        if branch == 1 { self.prompt.len() } else { self.prompt.len() + self.chosen.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAD: u32 = 9999;

    fn tokens() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(0u32..500, 1..12)
    }

    fn token_pairs() -> impl Strategy<Value = Vec<TokenPair>> {
        let pair = (tokens(), tokens(), tokens()).prop_map(|(prompt, chosen, rejected)| TokenPair {
            id: String::new(),
            prompt,
            chosen,
            rejected,
            flipped: false,
        });
        prop::collection::vec(pair, 1..6)
    }

    /// Returns the context of each scored token: the tokens that the predicting hidden state attends to, itself included,
    /// with their positions.
    fn contexts(batch: &TokenBatch) -> Vec<Vec<(i64, i64)>> {
        let context = |&flat: &i64| {
            let flat = flat as usize;
            let row = flat / batch.width * batch.width;
            (row..=flat)
                .filter(|&at| batch.branches[at] == 0 || batch.branches[at] == batch.branches[flat])
                .map(|at| (batch.positions[at], batch.ids[at]))
                .collect()
        };
        batch.scored.iter().map(context).collect()
    }

    proptest! {
        #[test]
        fn both_layouts_score_the_same_tokens_in_the_same_contexts(pairs in token_pairs()) {
            let borrowed: Vec<&TokenPair> = pairs.iter().collect();
            let padded = TokenBatch::pairs(&borrowed, Layout::Separate, Padding::Right(PAD)).expect("valid pairs");
            let shared = TokenBatch::pairs(&borrowed, Layout::SharedPrompt, Padding::Right(PAD)).expect("valid pairs");
            prop_assert_eq!(&padded.targets, &shared.targets);
            prop_assert_eq!(&padded.sequence, &shared.sequence);
            prop_assert_eq!(&padded.lengths, &shared.lengths);
            prop_assert_eq!(contexts(&padded), contexts(&shared));
        }

        #[test]
        fn each_scored_token_follows_its_whole_sequence(pairs in token_pairs()) {
            let borrowed: Vec<&TokenPair> = pairs.iter().collect();
            let batch = TokenBatch::pairs(&borrowed, Layout::SharedPrompt, Padding::Right(PAD)).expect("valid pairs");
            let n = pairs.len();
            prop_assert_eq!(batch.sequences, 2 * n);
            let mut seen = vec![Vec::new(); 2 * n];
            for ((context, &target), &sequence) in contexts(&batch).iter().zip(&batch.targets).zip(&batch.sequence) {
                let sequence = sequence as usize;
                let pair = &pairs[sequence % n];
                let mut expected = pair.prompt.clone();
                expected.extend_from_slice(&seen[sequence]);
                let expected: Vec<(i64, i64)> =
                    expected.iter().enumerate().map(|(at, &id)| (at as i64, i64::from(id))).collect();
                prop_assert_eq!(context, &expected);
                seen[sequence].push(target as u32);
            }
            for (sequence, tokens) in seen.iter().enumerate() {
                let pair = &pairs[sequence % n];
                prop_assert_eq!(tokens, if sequence < n { &pair.chosen } else { &pair.rejected });
            }
        }

        #[test]
        fn rows_without_padding_are_the_padded_ones_with_it_taken_out(pairs in token_pairs()) {
            let borrowed: Vec<&TokenPair> = pairs.iter().collect();
            for layout in [Layout::Separate, Layout::SharedPrompt] {
                let padded = TokenBatch::pairs(&borrowed, layout, Padding::Right(PAD)).expect("valid pairs");
                let packed = TokenBatch::pairs(&borrowed, layout, Padding::None).expect("valid pairs");
                let real = |data: &[i64]| -> Vec<i64> {
                    let is_real = padded.ids.iter().map(|&id| id != i64::from(PAD));
                    data.iter().zip(is_real).filter(|(_, real)| *real).map(|(&x, _)| x).collect()
                };
                prop_assert_eq!(&packed.ids, &real(&padded.ids));
                prop_assert_eq!(&packed.positions, &real(&padded.positions));
                prop_assert_eq!(&packed.branches, &real(&padded.branches));
                prop_assert_eq!(packed.ids.len(), packed.tokens);
                prop_assert_eq!(&packed.rows, &padded.rows);
                let predicts = |batch: &TokenBatch| -> Vec<(i64, i64)> {
                    batch.scored.iter().map(|&at| (batch.ids[at as usize], batch.positions[at as usize])).collect()
                };
                prop_assert_eq!(predicts(&packed), predicts(&padded));
                prop_assert_eq!(&packed.targets, &padded.targets);
                prop_assert_eq!(&packed.sequence, &padded.sequence);
            }
        }

        #[test]
        fn padding_is_right_never_scored_and_not_counted(pairs in token_pairs()) {
            let borrowed: Vec<&TokenPair> = pairs.iter().collect();
            for layout in [Layout::Separate, Layout::SharedPrompt] {
                let batch = TokenBatch::pairs(&borrowed, layout, Padding::Right(PAD)).expect("valid pairs");
                prop_assert!(batch.targets.iter().all(|&t| t != i64::from(PAD)));
                prop_assert!(batch.scored.iter().all(|&at| batch.ids[at as usize] != i64::from(PAD)));
                let real = batch.ids.iter().filter(|&&id| id != i64::from(PAD)).count();
                prop_assert_eq!(batch.tokens, real);
                for row in batch.ids.chunks(batch.width) {
                    let end = row.iter().position(|&id| id == i64::from(PAD)).unwrap_or(row.len());
                    prop_assert!(row[end..].iter().all(|&id| id == i64::from(PAD)));
                }
                let full = batch.ids.chunks(batch.width).any(|row| row[batch.width - 1] != i64::from(PAD));
                prop_assert!(full, "some row reaches the batch's width");
            }
        }
    }

    #[test]
    fn the_padded_layout_is_trls() {
        // The example in the documentation of TRL 1.16's DataCollatorForPreference.
        let pair = |prompt: &[u32], chosen: &[u32], rejected: &[u32]| TokenPair {
            id: String::new(),
            prompt: prompt.to_vec(),
            chosen: chosen.to_vec(),
            rejected: rejected.to_vec(),
            flipped: false,
        };
        let (a, b) = (pair(&[1, 2, 3], &[4, 5], &[6]), pair(&[7, 8], &[9], &[10, 11]));
        let batch = TokenBatch::pairs(&[&a, &b], Layout::Separate, Padding::Right(0)).expect("valid pairs");
        assert_eq!((batch.rows.len(), batch.width), (4, 5));
        let rows = [[1, 2, 3, 4, 5], [7, 8, 9, 0, 0], [1, 2, 3, 6, 0], [7, 8, 10, 11, 0]];
        assert_eq!(batch.ids, rows.concat());
        // TRL's completion mask, moved one to the left: the state before each completion token.
        assert_eq!(batch.scored, [2, 3, 6, 12, 16, 17]);
        assert_eq!(batch.targets, [4, 5, 9, 6, 10, 11]);
        assert_eq!(batch.lengths, [2, 1, 1, 2]);
    }

    #[test]
    fn dialogues_score_what_they_mark() {
        let first =
            Dialogue::new(vec![1, 2, 3, 4, 5], vec![false, true, false, false, true]).expect("well formed");
        let second = Dialogue::completion(&[6], &[7, 8]).expect("well formed");
        let batch = TokenBatch::dialogues(&[&first, &second], Padding::Right(PAD)).expect("not empty");
        assert_eq!(batch.scored, [0, 3, 5, 6]);
        assert_eq!(batch.targets, [2, 5, 7, 8]);
        assert_eq!(batch.sequence, [0, 0, 1, 1]);
        assert_eq!(batch.lengths, [2, 2]);
        assert_eq!(batch.tokens, 8);
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let good = TokenPair {
            id: "x".to_owned(),
            prompt: vec![1],
            chosen: vec![2],
            rejected: vec![3],
            flipped: false,
        };
        let no_prompt = TokenPair { prompt: Vec::new(), ..good.clone() };
        let no_answer = TokenPair { rejected: Vec::new(), ..good };
        for layout in [Layout::Separate, Layout::SharedPrompt] {
            let error = |pairs: &[&TokenPair]| {
                TokenBatch::pairs(pairs, layout, Padding::Right(PAD)).expect_err("cannot be scored")
            };
            assert!(matches!(error(&[]), DataError::EmptyBatch));
            assert!(matches!(error(&[&no_prompt]), DataError::EmptyPrompt { .. }));
            assert!(matches!(error(&[&no_answer]), DataError::EmptyResponse { response: "rejected", .. }));
        }
        assert!(matches!(TokenBatch::dialogues(&[], Padding::Right(PAD)), Err(DataError::EmptyBatch)));
    }
}
