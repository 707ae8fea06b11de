//! Names and shapes of a model's parameters.

use crate::config::ModelConfig;
use crate::switches::{Experts, FeedForward, NormKind, QkNorm};

/// Collects parameters in the order of the forward pass.
struct Shapes<'a> {
    config: &'a ModelConfig,
    shapes: Vec<(String, Vec<i64>)>,
}

impl ModelConfig {
    /// Returns the number of parameters; a tied embedding counts once.
    pub fn parameter_count(&self) -> u64 {
        let sizes =
            self.parameter_shapes().into_iter().map(|(_, shape)| shape.iter().product::<i64>() as u64);
        sizes.fold(0, u64::saturating_add)
    }

    /// Returns the number of parameters that a token passes through: those of its experts, and all others.
    pub fn active_parameter_count(&self) -> u64 {
        let Some(experts) = &self.switches.experts else { return self.parameter_count() };
        let idle = (experts.count - experts.per_token) * 3 * experts.width * self.hidden_size;
        let layers = (0..self.layers).filter(|layer| self.switches.experts_of(*layer).is_some()).count();
        self.parameter_count().saturating_sub((layers * idle) as u64)
    }

    /// Returns the checkpoint names and shapes of all parameters, in the order of the forward pass: embedding, then for each
    /// layer input norm, q, k, v, o (each weight before its bias), q and k norm, post-attention norm,
    /// gate, up, down; then the final norm and, where not tied, the head. A family has its own names, and not all of these.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<i64>)> {
        let (vocab, hidden) = (self.vocab_size as i64, self.hidden_size as i64);
        let switches = &self.switches;
        let embedding = ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]);
        let mut all = Shapes { config: self, shapes: vec![embedding] };
        for layer in 0..self.layers {
            all.layer(layer);
        }
        all.norm(switches.names.final_norm.to_owned(), vec![hidden]);
        if !self.tie_word_embeddings {
            all.shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
        }
        if switches.biases.lm_head {
            all.shapes.push(("lm_head.bias".to_owned(), vec![vocab]));
        }
        all.shapes
    }
}

impl Shapes<'_> {
    fn layer(&mut self, index: usize) {
        let (config, layer) = (self.config, &format!("model.layers.{index}"));
        let [hidden, intermediate] = [config.hidden_size, config.intermediate_size].map(|size| size as i64);
        let switches = &config.switches;
        let [before, after, before_mlp, after_mlp] = switches.layer_norms();
        self.layer_norm(layer, before);
        self.attention(layer);
        self.layer_norm(layer, after);
        self.layer_norm(layer, before_mlp);
        let bias = switches.biases.feed_forward;
        let at = |name: &str| format!("{layer}.{name}");
        if let Some(experts) = switches.experts_of(index) {
            self.experts(&at(experts.module), experts);
            return self.layer_norm(layer, after_mlp);
        }
        match switches.feed_forward {
            FeedForward::Gated => {
                self.linear(at("mlp.gate_proj"), intermediate, hidden, bias);
                self.linear(at(switches.names.up), intermediate, hidden, bias);
            }
            FeedForward::GatedFused => self.linear(at("mlp.gate_up_proj"), 2 * intermediate, hidden, bias),
            FeedForward::Plain => self.linear(at(switches.names.up), intermediate, hidden, bias),
        }
        self.linear(at(switches.names.down), hidden, intermediate, bias);
        self.layer_norm(layer, after_mlp);
    }

    fn experts(&mut self, module: &str, experts: &Experts) {
        let [hidden, width] = [self.config.hidden_size, experts.width].map(|size| size as i64);
        self.linear(format!("{module}.gate"), experts.count as i64, hidden, false);
        let [gate, up, down] = experts.projections;
        for expert in 0..experts.count {
            let at = |name: &str| format!("{module}.experts.{expert}.{name}");
            self.linear(at(gate), width, hidden, false);
            self.linear(at(up), width, hidden, false);
            self.linear(at(down), hidden, width, false);
        }
    }

    fn attention(&mut self, layer: &str) {
        let config = self.config;
        let (switches, hidden) = (&config.switches, config.hidden_size as i64);
        let heads = [config.heads, config.kv_heads].map(|heads| heads as i64);
        let head_dim = config.head_dim as i64;
        let [q_width, kv_width] = heads.map(|heads| heads * head_dim);
        let at = |name: &str| format!("{layer}.{name}");
        let bias = switches.biases.qkv;
        if switches.fused_qkv {
            self.linear(at("self_attn.qkv_proj"), q_width + 2 * kv_width, hidden, bias);
        } else {
            self.linear(at("self_attn.q_proj"), q_width, hidden, bias);
            self.linear(at("self_attn.k_proj"), kv_width, hidden, bias);
            self.linear(at("self_attn.v_proj"), kv_width, hidden, bias);
        }
        self.linear(at(switches.names.output), hidden, q_width, switches.biases.output);
        let Some(names) = switches.qk_norm.names() else { return };
        for (name, heads) in names.into_iter().zip(heads) {
            if switches.qk_norm == QkNorm::ListOfHeads {
                let of_head = |head| (format!("{layer}.{name}.norms.{head}.weight"), vec![head_dim]);
                self.shapes.extend((0..heads).map(of_head));
                continue;
            }
            let shape = match switches.qk_norm {
                QkNorm::EachHead => vec![heads, head_dim],
                QkNorm::Projection => vec![heads * head_dim],
                _ => vec![head_dim],
            };
            self.norm(at(name), shape);
        }
    }

    fn layer_norm(&mut self, layer: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.norm(format!("{layer}.{name}"), vec![self.config.hidden_size as i64]);
        }
    }

    fn norm(&mut self, name: String, shape: Vec<i64>) {
        if self.config.switches.norm == NormKind::Layer {
            self.shapes.push((format!("{name}.weight"), shape.clone()));
            self.shapes.push((format!("{name}.bias"), shape));
        } else {
            self.shapes.push((format!("{name}.weight"), shape));
        }
    }

    fn linear(&mut self, name: String, out: i64, input: i64, bias: bool) {
        self.shapes.push((format!("{name}.weight"), vec![out, input]));
        if bias {
            self.shapes.push((format!("{name}.bias"), vec![out]));
        }
    }
}
