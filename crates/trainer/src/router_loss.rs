//! The loss that balances the experts of a mixture.

use policy_model::{ModelConfig, Routing};
use pref_data::{Padding, TokenBatch};
use tch::{Device, Kind, Tensor};

/// The load-balancing loss of a batch ([Fedus et al. 2021](https://arxiv.org/abs/2101.03961), equations 4 to 6), as transformers
/// computes it: `experts · Σ f · P` over the experts, where `f` is the mean number of a token's assignments to an expert and `P` its
/// mean probability, over the tokens of all layers. `f` has no gradient.
#[derive(Debug)]
pub(crate) struct RouterLoss {
    pub(crate) routing: Routing,
    /// `[N]`: the number of sequences that a token is part of; 0 for padding.
    weights: Tensor,
    layers: usize,
    experts: i64,
    per_token: i64,
    coefficient: f64,
    /// `[N, experts]`: the gradient of the probabilities of each layer.
    slope: Option<Tensor>,
}

impl RouterLoss {
    /// Prepares the loss of a batch; `None` for a model without experts, and for weight 0.
    pub(crate) fn new(config: &ModelConfig, batch: &TokenBatch, device: Device) -> Option<Self> {
        let coefficient = config.router_aux_loss_coef;
        let sizes = config.experts().filter(|_| coefficient > 0.0)?;
        let mut weights = Vec::with_capacity(batch.ids.len());
        for row in &batch.rows {
            weights.extend(std::iter::repeat_n(row.branches.len().max(1) as f32, row.trunk));
            weights.extend(std::iter::repeat_n(1.0, row.tokens() - row.trunk));
            if batch.padding != Padding::None {
                weights.extend(std::iter::repeat_n(0.0, batch.width - row.tokens()));
            }
        }
        Some(Self {
            routing: Routing::default(),
            weights: policy_model::on_device(&weights, device),
            layers: config.layers,
            experts: sizes.count as i64,
            per_token: sizes.per_token as i64,
            coefficient,
            slope: None,
        })
    }

    /// Returns the loss with its weight, and prepares its gradient times `scale`.
    pub(crate) fn evaluate(&mut self, scale: f64) -> f64 {
        let _guard = tch::no_grad_guard();
        let options = (Kind::Float, self.weights.device());
        let mut counts = Tensor::zeros([self.experts], options);
        let mut sums = Tensor::zeros([self.experts], options);
        let mut total = 0.0;
        for probabilities in (0..self.layers).filter_map(|layer| self.routing.of_layer(layer)) {
            let (_, chosen) = probabilities.topk(self.per_token, -1, true, true);
            let weights = self.weights.repeat_interleave_self_int(self.per_token, 0, None);
            counts = counts.index_add(0, &chosen.flatten(0, -1), &weights);
            sums += (probabilities * self.weights.unsqueeze(-1)).sum_dim_intlist(
                [0].as_slice(),
                false,
                Kind::Float,
            );
            total += self.weights.sum(Kind::Double).double_value(&[]);
        }
        let slope = counts * (self.experts as f64 * self.coefficient / (total * total));
        let loss = (&slope * sums).sum(Kind::Double).double_value(&[]);
        self.slope = Some(self.weights.unsqueeze(-1) * slope * scale);
        loss
    }

    /// Returns the product of a layer's probabilities with their gradient, a scalar.
    fn of_layer(&self, layer: usize) -> Option<Tensor> {
        Some((self.routing.of_layer(layer)? * self.slope.as_ref()?).sum(Kind::Float))
    }

    /// Returns a scalar with gradient 1 whose derivatives are those of `output` with this gradient, and of the loss in `layers`.
    pub(crate) fn joined(
        &self,
        layers: std::ops::Range<usize>,
        [output, gradient]: [&Tensor; 2],
    ) -> [Tensor; 2] {
        let product = (output * gradient).sum(Kind::Float);
        let joined = layers.filter_map(|layer| self.of_layer(layer)).fold(product, |sum, next| sum + next);
        let one = joined.ones_like().detach();
        [joined, one]
    }

    pub(crate) fn layers(&self) -> std::ops::Range<usize> {
        0..self.layers
    }
}
