//! Decoder-only policies in Hugging Face folders: load, score, generate, save.
//!
//! One decoder serves the Llama, Mistral, Qwen2 and Qwen3 families, which differ in a few switches of
//! [`ModelConfig`]. It is an ordinary function of tensors: with gradients enabled libtorch records it, under
//! `tch::no_grad` it does not, and a trainer may hand it views of one flat buffer as parameters.
//!
//! ```
//! use policy_model::{ModelConfig, Policy, Rows};
//! use tch::{Device, Kind, Tensor};
//!
//! let config = ModelConfig::from_json(serde_json::json!({
//!     "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32,
//!     "num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": true,
//! }))?;
//! let policy = Policy::initialise(config, &seeds::Seeds::new(0), Kind::Float, Device::Cpu)?;
//!
//! // Log-probability of tokens 5, 6 after the prompt 3, 4.
//! let rows = Rows::causal(&[&[3, 4, 5, 6]], Device::Cpu);
//! let hidden = policy.hidden_states(&rows).view([4, 16]);
//! let logps = policy.token_logps(&hidden.narrow(0, 1, 2), &Tensor::from_slice(&[5_i64, 6]));
//! assert_eq!(logps.size(), [2]);
//! // Fresh weights know nothing: each token has about one chance in 32.
//! assert!((logps.double_value(&[0]) + 32_f64.ln()).abs() < 0.1);
//! # Ok::<(), policy_model::PolicyError>(())
//! ```

#![forbid(unsafe_code)]

mod attention;
mod config;
mod decoder;
mod error;
mod generate;
mod initialise;
mod layered;
mod lora;
mod on_device;
mod peft;
mod policy;
mod rope;
mod sampling;
mod save;
mod weights;

pub use attention::{PackedRow, PackedRows, Rows, Visibility};
pub use config::{AttentionBias, Family, ModelConfig};
pub use error::PolicyError;
pub use generate::{Finish, Generation, GenerationOptions, GenerationRequest};
pub use layered::{Keep, Layered};
pub use lora::{Adapters, Lora, Projection};
pub use on_device::on_device;
pub use policy::{Policy, native_bf16};
pub use rope::{Rope, RopeScaling};
pub use sampling::Sampling;
pub use save::{UNFINISHED, write_tensors};
