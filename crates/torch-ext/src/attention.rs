//! Attention of packed rows whose branches share a trunk, for training and scoring on a CPU.

use tch::Tensor;

use crate::check::{check_dense, check_stored, whole_vectors};
use crate::fused::made;
use crate::{TorchExtError, ffi};

/// How tokens that lie one behind the other hang together: rows, each a trunk and any number of branches.
///
/// A token of a trunk sees the trunk up to itself; a token of a branch sees the whole trunk, and its branch up to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrees {
    /// For every row its number of parts, and how many tokens each has.
    lengths: Vec<i64>,
    tokens: i64,
}

impl TokenTrees {
    /// Rows in the order of their tokens: of each how many tokens its trunk and its branches have.
    pub fn new<'a>(rows: impl IntoIterator<Item = (usize, &'a [usize])>) -> Self {
        // What no tensor is long enough for does not fit any.
        let length = |tokens: usize| i64::try_from(tokens).unwrap_or(i64::MAX);
        let (mut lengths, mut tokens) = (Vec::new(), 0_i64);
        for (trunk, branches) in rows {
            lengths.push(1 + length(branches.len()));
            lengths.extend(std::iter::once(trunk).chain(branches.iter().copied()).map(length));
            tokens = branches.iter().fold(tokens.saturating_add(length(trunk)), |tokens, &branch| {
                tokens.saturating_add(length(branch))
            });
        }
        Self { lengths, tokens }
    }

    /// Tokens of all rows.
    pub fn tokens(&self) -> i64 {
        self.tokens
    }

    /// For every row its number of parts, and how many tokens each has.
    pub(crate) fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Of every row how many tokens its trunk and its branches have.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[i64]> {
        let mut rest = self.lengths.as_slice();
        std::iter::from_fn(move || {
            let (&parts, behind) = rest.split_first()?;
            let (row, behind) = behind.split_at(parts as usize);
            rest = behind;
            Some(row)
        })
    }
}

/// Attention of packed rows, `softmax(q · kᵀ / √d) · v` over the tokens that each sees, with a gradient
/// ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), in tiles as in
/// [Dao et al. 2022](https://arxiv.org/abs/2205.14135)).
///
/// Scores are computed in fp32 a tile at a time, forwards and again backwards; what a graph keeps is the operands, the result,
/// and one number a query and head. Results are rounded once. No bit depends on the number of threads, on the rows beside a
/// row, or on which of two branches stands first. Gradients cannot be differentiated again.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_ext::{TokenTrees, tree_attention};
///
/// // A trunk of one token and two branches of one: keys are alike, so that each sees the mean of the trunk and itself.
/// let ones = Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
/// let values = Tensor::from_slice(&[1f32, 3.0, 7.0]).view([3, 1, 1]) * &ones;
/// let seen = tree_attention(&ones, &ones, &values, &TokenTrees::new([(1, &[1, 1][..])]))?;
/// assert_eq!(Vec::<f32>::try_from(seen.select(2, 0).view(-1))?, [1.0, 2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `q` `[N, heads, d]`, `k` and `v` `[N, kv_heads, d]`, `heads` a multiple of `kv_heads`, d a multiple of 16, N the tokens of
/// `trees`; all Float or all `BFloat16`, contiguous, on the CPU. Returns the shape and kind of `q`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn tree_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    trees: &TokenTrees,
) -> Result<Tensor, TorchExtError> {
    check_stored("the queries", q)?;
    let kind = q.kind();
    for (tensor, given) in [("the queries", q), ("the keys", k), ("the values", v)] {
        check_dense(tensor, given, kind)?;
    }
    let (of_q, of_k) = (q.size(), k.size());
    let &[tokens, heads, dim] = of_q.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "the queries", found: of_q, expected: vec![-1, -1, -1] });
    };
    if tokens != trees.tokens || dim != whole_vectors(dim) {
        let expected = vec![trees.tokens, heads, whole_vectors(dim)];
        return Err(TorchExtError::Shape { tensor: "the queries", found: of_q, expected });
    }
    let fits = matches!(*of_k.as_slice(), [n, kv_heads, d]
        if n == tokens && d == dim && kv_heads > 0 && heads % kv_heads == 0);
    if !fits {
        return Err(TorchExtError::Shape {
            tensor: "the keys",
            found: of_k,
            expected: vec![tokens, heads, dim],
        });
    }
    if v.size() != of_k {
        return Err(TorchExtError::Shape { tensor: "the values", found: v.size(), expected: of_k });
    }
    made("attend", |made, message| {
        // SAFETY: the tensors are live, `made` points at a handle, and kinds, shapes and layout are the ones that the shim
        // takes for granted; `lengths` says of so many numbers how many parts follow, and its tokens are those of `q`. It is
        // read during the call only; a graph holds a copy, and counted handles of its own.
        unsafe {
            ffi::torch_ext_tree_attention(
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                trees.lengths.as_ptr(),
                trees.lengths.len(),
                made,
                message,
            )
        }
    })
}
