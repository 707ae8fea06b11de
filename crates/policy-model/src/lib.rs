#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adapted;
mod attention;
mod config;
mod decoder;
mod error;
mod generate;
mod initialize;
mod layer_source;
mod layerwise;
mod lora;
mod on_device;
mod peft;
mod policy;
mod rope;
mod sampling;
mod save;
mod weights;

pub use attention::{AttentionMask, PackedRow, PackedRows, Rows};
pub use config::{AttentionBias, Family, ModelConfig};
pub use error::PolicyError;
pub use generate::{Finish, Generation, GenerationOptions, GenerationRequest};
pub use layer_source::{LayerSource, layer_of};
pub use layerwise::{Checkpointing, LayerwiseBackward};
pub use lora::{Adapters, Lora, Projection};
pub use on_device::on_device;
pub use policy::{Policy, native_bf16};
pub use rope::{Rope, RopeScaling};
pub use sampling::Sampling;
pub use save::{Companions, UNFINISHED, write_tensors};
