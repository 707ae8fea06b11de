//! A decoder layer: attention and the block after it.

use tch::Tensor;
use torch_ext::{AttentionBlock, GatedBlock, SharedPrefixRows, attention_block, gated_block};

use crate::attention::{AttentionBackend, ScoreRule};
use crate::dropout::AdapterDropout;
use crate::error::PolicyError;
use crate::experts::Mixture;
use crate::feed_forward::FeedForward;
use crate::linear::{Linear, LinearKernel, LinearPass};
use crate::norm::Norm;
use crate::rotary::Rotation;
use crate::routing::Routing;

/// The rotations of one forward pass.
#[derive(Debug)]
pub(crate) struct Rotations {
    pub(crate) global: Rotation,
    pub(crate) local: Option<Rotation>,
    /// `[N, 1, 1]`: factors of the queries; `None` if all are 1.
    pub(crate) query_scale: Option<Tensor>,
}

#[derive(Debug)]
pub(crate) struct Layer {
    /// Norms before and after attention, before and after the feed-forward block.
    pub(crate) norms: [Option<Norm>; 4],
    pub(crate) self_attn: Attention,
    pub(crate) feed_forward: Mlp,
    pub(crate) is_parallel: bool,
    /// Factor of what a block adds to the residual stream.
    pub(crate) residual_scale: f64,
    /// Whether norms and residuals are those of the fused kernels.
    pub(crate) may_fuse: bool,
}

#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) qkv: Qkv,
    pub(crate) o_proj: Linear,
    /// One norm for all heads, or one for each.
    pub(crate) qk_norm: Option<[Vec<Norm>; 2]>,
    /// Whether the norms are those of whole projections.
    pub(crate) norms_projections: bool,
    pub(crate) heads: [i64; 2],
    pub(crate) head_dim: i64,
    /// Factor of the queries, beyond the backends' `1/√head_dim`.
    pub(crate) query_scale: f64,
    pub(crate) rotates: bool,
    pub(crate) rule: ScoreRule,
}

/// The block after attention.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a layer has one of them, and most layers are dense")]
pub(crate) enum Mlp {
    Dense(FeedForward),
    Experts(Mixture),
}

impl Mlp {
    fn forward(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        match self {
            Self::Dense(block) => block.forward(x, pass),
            Self::Experts(mixture) => mixture.forward(x, pass),
        }
    }

    fn fusable(&self) -> Option<[&Tensor; 3]> {
        match self {
            Self::Dense(block) => block.fusable(),
            Self::Experts(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Qkv {
    Separate { q_proj: Linear, k_proj: Linear, v_proj: Linear },
    Fused(Linear),
}

/// What a layer needs besides the hidden states.
pub(crate) struct Pass<'a> {
    /// The index of the layer.
    pub(crate) index: usize,
    /// `None` without rotation.
    pub(crate) rotation: Option<&'a Rotation>,
    pub(crate) query_scale: Option<&'a Tensor>,
    pub(crate) kernel: LinearKernel,
    /// The tokens whose results are needed after attention; `None` for all.
    pub(crate) selected: Option<&'a Tensor>,
    /// The dropout of adapters for all tokens, and for the selected ones.
    pub(crate) dropout: Option<AdapterDropout>,
    pub(crate) dropout_of_selected: Option<AdapterDropout>,
    pub(crate) routing: Option<Routing>,
}

impl Pass<'_> {
    pub(crate) fn select(&self, x: Tensor) -> Tensor {
        match self.selected {
            Some(selected) => x.index_select(0, selected),
            None => x,
        }
    }

    /// Returns what products before the selection need.
    pub(crate) fn of_all(&self) -> LinearPass<'_> {
        let routing = self.routing.as_ref().map(|routing| (routing, self.index));
        LinearPass { kernel: self.kernel, dropout: self.dropout.as_ref(), routing }
    }

    /// Returns what products after the selection need.
    pub(crate) fn of_selected(&self) -> LinearPass<'_> {
        LinearPass { dropout: self.dropout_of_selected.as_ref().or(self.dropout.as_ref()), ..self.of_all() }
    }
}

/// Applies one norm, or one for each head to `x` `[N, heads, head_dim]`.
fn of_heads(norms: &[Norm], x: &Tensor) -> Result<Tensor, PolicyError> {
    let [first, _, ..] = norms else { return norms[0].forward(x) };
    let weights: Vec<&Tensor> = norms.iter().map(|norm| &norm.weight).collect();
    let weight = Tensor::stack(&weights, 0);
    Norm { weight, bias: None, eps: first.eps, kind: first.kind }.forward(x)
}

fn normed(norm: Option<&Norm>, x: Tensor) -> Result<Tensor, PolicyError> {
    norm.map_or(Ok(x.shallow_clone()), |norm| norm.forward(&x))
}

/// A layer is two residual blocks. Where a kernel supports it, a block is one autograd node instead of a dozen, bitwise identical
/// to the composed operations.
impl Layer {
    pub(crate) fn attention(
        &self,
        hidden: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let [before, after, ..] = &self.norms;
        let input = normed(before.as_ref(), hidden.shallow_clone())?;
        let attended = normed(after.as_ref(), self.self_attn.forward(&input, pass, backend)?)?;
        Ok(self.added(hidden, attended))
    }

    pub(crate) fn feed_forward(&self, hidden: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        let [.., before, after] = &self.norms;
        let input = normed(before.as_ref(), hidden.shallow_clone())?;
        let result = normed(after.as_ref(), self.feed_forward.forward(&input, pass)?)?;
        Ok(self.added(hidden, result))
    }

    /// Attention and the feed-forward block read the same normed states.
    pub(crate) fn parallel(
        &self,
        hidden: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let input = normed(self.norms[0].as_ref(), hidden.shallow_clone())?;
        let attended = pass.select(self.self_attn.forward(&input, pass, backend)?);
        let result = self.feed_forward.forward(&pass.select(input), pass.of_selected())?;
        let hidden = self.added(&pass.select(hidden.shallow_clone()), attended);
        Ok(self.added(&hidden, result))
    }

    fn added(&self, hidden: &Tensor, block: Tensor) -> Tensor {
        if self.residual_scale == 1.0 { hidden + block } else { hidden + block * self.residual_scale }
    }

    /// Returns `None` where the fused kernel does not support the block: its norms, biases, adapters, devices, kinds, widths.
    pub(crate) fn fused_attention(
        &self,
        hidden: &Tensor,
        tables: (&Tensor, &Tensor),
        rows: &SharedPrefixRows,
    ) -> Result<Option<Tensor>, PolicyError> {
        let Attention {
            qkv: Qkv::Separate { q_proj, k_proj, v_proj },
            o_proj,
            qk_norm: None,
            query_scale,
            ..
        } = &self.self_attn
        else {
            return Ok(None);
        };
        let [Some(input_layernorm), ..] = &self.norms else { return Ok(None) };
        if !self.may_fuse || *query_scale != 1.0 {
            return Ok(None);
        }
        let Some(o_proj) = o_proj.plain_weight() else { return Ok(None) };
        let biases = match [q_proj, k_proj, v_proj].map(|projection| projection.bias.as_ref()) {
            [None, None, None] => None,
            [Some(q), Some(k), Some(v)] => Some([q, k, v]),
            _ => return Ok(None),
        };
        if [q_proj, k_proj, v_proj].iter().any(|projection| projection.low_rank.is_some()) {
            return Ok(None);
        }
        let weights = AttentionBlock {
            input_layernorm: &input_layernorm.weight,
            eps: input_layernorm.eps,
            q_proj: &q_proj.weight,
            k_proj: &k_proj.weight,
            v_proj: &v_proj.weight,
            o_proj,
            biases,
        };
        Ok(attention_block(hidden, &weights, tables, rows)?)
    }

    /// As [`Layer::fused_attention`].
    pub(crate) fn fused_gated(&self, hidden: &Tensor) -> Result<Option<Tensor>, PolicyError> {
        let (true, Some([gate_proj, up_proj, down_proj])) = (self.may_fuse, self.feed_forward.fusable())
        else {
            return Ok(None);
        };
        let [_, _, Some(norm), _] = &self.norms else { return Ok(None) };
        let weights = GatedBlock {
            post_attention_layernorm: &norm.weight,
            eps: norm.eps,
            gate_proj,
            up_proj,
            down_proj,
        };
        Ok(gated_block(hidden, &weights)?)
    }
}

impl Attention {
    /// Returns the rotation of this layer.
    pub(crate) fn rotation<'a>(&self, rotations: &'a Rotations) -> Option<&'a Rotation> {
        let local = rotations.local.as_ref().filter(|_| self.rule.window.is_some());
        self.rotates.then(|| local.unwrap_or(&rotations.global))
    }

    fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let (q, k, v) = self.heads(x, pass.of_all())?;
        let (q, k) = match pass.rotation {
            Some(rotation) => (rotation.rotate(&q)?, rotation.rotate(&k)?),
            None => (q, k),
        };
        let q = if self.query_scale == 1.0 { q } else { q * self.query_scale };
        let q = match pass.query_scale {
            Some(scale) => q * scale,
            None => q,
        };
        self.o_proj.forward(&backend.attend(pass.index, self.rule, q, k, v)?, pass.of_all())
    }

    /// Returns normed queries and keys, and values: `[N, heads, head_dim]`.
    fn heads(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<(Tensor, Tensor, Tensor), PolicyError> {
        let split = |x: Tensor| x.view([x.size()[0], -1, self.head_dim]);
        let norm = |which: usize, x: Tensor| match &self.qk_norm {
            None => Ok(split(x)),
            Some(norms) if self.norms_projections => of_heads(&norms[which], &x).map(split),
            Some(norms) => of_heads(&norms[which], &split(x)),
        };
        match &self.qkv {
            Qkv::Separate { q_proj, k_proj, v_proj } => {
                let (q, k) = (q_proj.forward(x, pass)?, k_proj.forward(x, pass)?);
                let (q, k) = (norm(0, q)?, norm(1, k)?);
                Ok((q, k, split(v_proj.forward(x, pass)?)))
            }
            Qkv::Fused(qkv_proj) => {
                let [q_width, kv_width] = self.heads.map(|heads| heads * self.head_dim);
                let parts = qkv_proj.forward(x, pass)?.split_with_sizes([q_width, kv_width, kv_width], -1);
                // Kernels read contiguous operands.
                let [q, k, v] = [0, 1, 2].map(|part: usize| parts[part].contiguous());
                Ok((norm(0, q)?, norm(1, k)?, split(v)))
            }
        }
    }
}
