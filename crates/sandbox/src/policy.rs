//! The policy's `config.json`.

use serde_json::{Value, json};

use crate::tokenizer::{MAX_LENGTH, SPECIAL};

/// The size of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Width 64, feed-forward 176, 2 layers, 4 heads: about 0.13M parameters.
    Small,
    /// Width 96, feed-forward 256, 2 layers, 4 heads: about 0.27M parameters.
    Medium,
}

/// The `config.json` of a Llama-architecture policy of `size` over a vocabulary of `vocab_size` tokens.
///
/// Embeddings are tied. The standard deviation of the initial weights, `initializer_range`, is that of Llama; ids of
/// special tokens are those of the sandbox tokenizer.
///
/// ```
/// use sandbox::{Size, model_config};
/// let config = model_config(Size::Small, 512);
/// assert_eq!(config["hidden_size"], 64);
/// assert_eq!(config["architectures"][0], "LlamaForCausalLM");
/// ```
pub fn model_config(size: Size, vocab_size: usize) -> Value {
    let (hidden_size, intermediate_size) = match size {
        Size::Small => (64, 176),
        Size::Medium => (96, 256),
    };
    let heads = 4;
    let id = |token: &str| SPECIAL.iter().position(|special| *special == token);
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden_size / heads,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_LENGTH,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
        "bos_token_id": null,
        "eos_token_id": id(crate::END),
        "pad_token_id": id(crate::PAD),
        "torch_dtype": "float32",
        "use_cache": true,
    })
}
