//! Attention of packed rows on a GPU, by the kernels that libtorch has for rows of any length.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::attention::TokenTrees;
use crate::check::{check_kind, check_stored};
use crate::fused::made;
use crate::{TorchExtError, ffi};

/// [`TokenTrees`] as kernels for rows of any length take them: every trunk and every branch that has tokens is a part, whose keys
/// are those of the trunk and its own.
#[derive(Debug)]
pub struct VarlenTrees {
    /// `[M]` i64: for every part the tokens that are its keys.
    keys: Tensor,
    /// `[parts + 1]` i32: where the queries of each part begin, and where the last ones end.
    ends_of_queries: Tensor,
    /// The same of the keys.
    ends_of_keys: Tensor,
    longest_queries: i64,
    longest_keys: i64,
    tokens: i64,
}

impl VarlenTrees {
    /// `trees` for tensors on `device`.
    ///
    /// # Errors
    /// [`TorchExtError::Shape`] where the parts have more keys than the kernels count, 2³¹ − 1.
    pub fn new(trees: &TokenTrees, device: Device) -> Result<Self, TorchExtError> {
        let count = trees.rows().map(keys_of).fold(0, i64::saturating_add);
        if i32::try_from(count).is_err() {
            let expected = vec![i64::from(i32::MAX)];
            return Err(TorchExtError::Shape {
                tensor: "the keys of all parts",
                found: vec![count],
                expected,
            });
        }
        let (mut keys, mut parts) = (Vec::new(), Vec::new());
        let mut first = 0;
        for row in trees.rows() {
            let (trunk, branches) = trunk_and_branches(row);
            let mut part = |before: Range<i64>, own: Range<i64>| {
                // Kernels need not be asked what they make of a part without queries.
                if !own.is_empty() {
                    parts.push((own.end - own.start, before.end - before.start + own.end - own.start));
                    keys.extend(before.chain(own));
                }
            };
            let of_trunk = first..first + trunk;
            part(0..0, of_trunk.clone());
            first += trunk;
            for &branch in branches {
                part(of_trunk.clone(), first..first + branch);
                first += branch;
            }
        }
        let ends = |length: fn(&(i64, i64)) -> i64| {
            let ends = parts.iter().scan(0, |end, part| {
                *end += length(part);
                Some(*end)
            });
            let ends: Vec<i64> = std::iter::once(0).chain(ends).collect();
            Tensor::from_slice(&ends).to_kind(Kind::Int).to_device(device)
        };
        let longest = |length: fn(&(i64, i64)) -> i64| parts.iter().map(length).max().unwrap_or(0);
        Ok(Self {
            ends_of_queries: ends(|part| part.0),
            ends_of_keys: ends(|part| part.1),
            longest_queries: longest(|part| part.0),
            longest_keys: longest(|part| part.1),
            keys: Tensor::from_slice(&keys).to_device(device),
            tokens: trees.tokens(),
        })
    }
}

fn trunk_and_branches(row: &[i64]) -> (i64, &[i64]) {
    row.split_first().map_or((0, row), |(trunk, branches)| (*trunk, branches))
}

/// How many keys the parts of a row have together.
fn keys_of(row: &[i64]) -> i64 {
    let (trunk, branches) = trunk_and_branches(row);
    branches.iter().fold(trunk, |count, &branch| count.saturating_add(trunk).saturating_add(branch))
}

/// As [`tree_attention`](crate::tree_attention) on a GPU: one call of libtorch's flash attention for `BFloat16`, and of its
/// memory-efficient attention for Float. Never run so far.
///
/// The keys of a trunk are copied once more for each of its branches. The gradient is libtorch's own; on a GPU its sums may be
/// taken in another order each time.
///
/// # Shapes
/// `q` `[N, heads, d]`, `k` and `v` `[N, kv_heads, d]`, `heads` a multiple of `kv_heads`, d a multiple of 8 and at most 256, N the
/// tokens of `trees`; all Float or all `BFloat16`, on the GPU of `trees`. Returns the shape and kind of `q`.
///
/// # Errors
/// [`TorchExtError::Device`] on a CPU; [`TorchExtError::Kind`], [`TorchExtError::Shape`]; [`TorchExtError::Torch`] where the GPU has
/// no such kernel (flash attention wants compute capability 8.0).
pub fn varlen_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    trees: &VarlenTrees,
) -> Result<Tensor, TorchExtError> {
    check_stored("the queries", q)?;
    if !q.device().is_cuda() {
        return Err(TorchExtError::Device {
            tensor: "the queries",
            found: q.device(),
            expected: Device::Cuda(0),
        });
    }
    for (tensor, given) in [("the keys", k), ("the values", v), ("the trees", &trees.keys)] {
        if given.device() != q.device() {
            return Err(TorchExtError::Device { tensor, found: given.device(), expected: q.device() });
        }
    }
    check_kind("the keys", k, q.kind())?;
    check_kind("the values", v, q.kind())?;
    check_shapes([q, k, v].map(Tensor::size), trees.tokens)?;
    let (k, v) = (k.index_select(0, &trees.keys), v.index_select(0, &trees.keys));
    made("attend", |made, message| {
        // SAFETY: the tensors are live, `made` points at a handle, and kinds, shapes and devices are the ones that the shim takes
        // for granted: `ends_of_queries` ends at the tokens of `q`, `ends_of_keys` at those of `k`, both int32 and made here. A
        // graph holds counted handles of its own.
        unsafe {
            ffi::torch_ext_varlen_attention(
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                trees.ends_of_queries.as_ptr(),
                trees.ends_of_keys.as_ptr(),
                trees.longest_queries,
                trees.longest_keys,
                made,
                message,
            )
        }
    })
}

fn check_shapes([q, k, v]: [Vec<i64>; 3], tokens: i64) -> Result<(), TorchExtError> {
    let &[of_q, heads, dim] = q.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "the queries", found: q, expected: vec![-1, -1, -1] });
    };
    if of_q != tokens || dim == 0 || dim % 8 != 0 || dim > 256 {
        let expected = vec![tokens, heads, ((dim + 7) / 8 * 8).clamp(8, 256)];
        return Err(TorchExtError::Shape { tensor: "the queries", found: q, expected });
    }
    let fits = matches!(*k.as_slice(), [n, kv_heads, d]
        if n == tokens && d == dim && kv_heads > 0 && heads % kv_heads == 0);
    if !fits {
        return Err(TorchExtError::Shape {
            tensor: "the keys",
            found: k,
            expected: vec![tokens, heads, dim],
        });
    }
    if v == k { Ok(()) } else { Err(TorchExtError::Shape { tensor: "the values", found: v, expected: k }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_attention;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn trees() -> TokenTrees {
        TokenTrees::new([(3, &[2, 4][..]), (0, &[2][..]), (5, &[][..]), (1, &[1][..])])
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(Kind::Int64)).unwrap()
    }

    #[test]
    fn parts_have_the_keys_of_their_trunk_and_their_own() {
        let trees = TokenTrees::new([(2, &[1, 2][..]), (1, &[][..]), (0, &[1][..])]);
        let trees = VarlenTrees::new(&trees, Device::Cpu).unwrap();
        assert_eq!(numbers(&trees.keys), [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6]);
        assert_eq!(numbers(&trees.ends_of_queries), [0, 2, 3, 5, 6, 7]);
        assert_eq!(numbers(&trees.ends_of_keys), [0, 2, 5, 9, 10, 11]);
        assert_eq!((trees.longest_queries, trees.longest_keys), (2, 4));
        assert_eq!(trees.ends_of_keys.kind(), Kind::Int);
    }

    /// What the kernels are told, computed as their documentation says on this machine, is what the CPU's own kernel computes.
    #[test]
    fn the_last_query_of_a_part_that_sees_all_its_keys_makes_it_a_tree() {
        let trees = trees();
        let tokens = trees.tokens();
        let of = |heads: i64, seed: f64| {
            let numbers = (Tensor::arange(tokens * heads * 16, CPU) * 0.7 + seed).sin();
            numbers.view([tokens, heads, 16])
        };
        let (q, k, v) = (of(4, 0.0), of(2, 1.0), of(2, 2.0));
        let whole = tree_attention(&q, &k, &v, &trees).unwrap();
        let parts = VarlenTrees::new(&trees, Device::Cpu).unwrap();
        let wide = |x: &Tensor| x.index_select(0, &parts.keys).repeat_interleave_self_int(2, 1, None);
        let (k, v) = (wide(&k), wide(&v));
        let (of_queries, of_keys) = (numbers(&parts.ends_of_queries), numbers(&parts.ends_of_keys));
        let mut attended = Vec::new();
        for (queries, keys) in of_queries.windows(2).zip(of_keys.windows(2)) {
            let (m, n) = (queries[1] - queries[0], keys[1] - keys[0]);
            let cut = |x: &Tensor, ends: &[i64]| x.narrow(0, ends[0], ends[1] - ends[0]).transpose(0, 1);
            let scores = cut(&q, queries).matmul(&cut(&k, keys).transpose(1, 2)) / 4.0;
            let later = Tensor::ones([m, n], (Kind::Bool, Device::Cpu)).triu(n - m + 1);
            let weights = scores.masked_fill(&later, f64::NEG_INFINITY).softmax(-1, Kind::Float);
            attended.push(weights.matmul(&cut(&v, keys)).transpose(0, 1));
        }
        let furthest = (Tensor::cat(&attended, 0) - whole).abs().max().double_value(&[]);
        assert!(furthest < 1e-5, "{furthest}");
    }

    #[test]
    fn more_keys_than_the_kernels_count_are_refused() {
        for (trunk, branches) in
            [(1 << 30, &[1, 1][..]), (0, &[1 << 31][..]), (usize::MAX, &[usize::MAX][..])]
        {
            let trees = VarlenTrees::new(&TokenTrees::new([(trunk, branches)]), Device::Cpu);
            assert!(matches!(trees, Err(TorchExtError::Shape { tensor: "the keys of all parts", .. })));
        }
    }

    #[test]
    fn a_cpu_is_told_that_it_has_no_such_kernel() {
        let trees = trees();
        let x = Tensor::zeros([trees.tokens(), 2, 16], CPU);
        let error = varlen_attention(&x, &x, &x, &VarlenTrees::new(&trees, Device::Cpu).unwrap());
        assert!(matches!(
            error,
            Err(TorchExtError::Device {
                tensor: "the queries",
                found: Device::Cpu,
                expected: Device::Cuda(0)
            })
        ));
    }

    #[test]
    fn shapes_that_the_kernels_do_not_take_are_refused() {
        let shape = |tokens, heads, dim| vec![tokens, heads, dim];
        assert!(check_shapes([shape(7, 4, 64), shape(7, 2, 64), shape(7, 2, 64)], 7).is_ok());
        for (q, k, v) in [
            (shape(6, 4, 64), shape(7, 2, 64), shape(7, 2, 64)),
            (shape(7, 4, 60), shape(7, 2, 60), shape(7, 2, 60)),
            (shape(7, 4, 512), shape(7, 2, 512), shape(7, 2, 512)),
            (shape(7, 4, 64), shape(7, 3, 64), shape(7, 3, 64)),
            (shape(7, 4, 64), shape(7, 2, 64), shape(7, 1, 64)),
            (vec![7, 64], shape(7, 2, 64), shape(7, 2, 64)),
        ] {
            assert!(matches!(check_shapes([q, k, v], 7), Err(TorchExtError::Shape { .. })));
        }
    }
}
