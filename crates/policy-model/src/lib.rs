#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adapted;
mod adapter_folder;
mod attention;
mod config;
mod decoder;
mod dropout;
mod error;
mod families;
mod feed_forward;
mod fields;
mod generate;
mod initialize;
mod layer_source;
mod layerwise;
mod linear;
mod lora;
mod norm;
mod on_device;
mod peft;
mod policy;
mod rope;
mod rotary;
mod sampling;
mod save;
mod shapes;
mod switches;
mod targets;
mod weights;

pub use adapter_folder::{base_folder, model_folders};
pub use attention::{AttentionMask, PackedRow, PackedRows, Rows};
pub use config::ModelConfig;
pub use dropout::AdapterDropout;
pub use error::PolicyError;
pub use families::Family;
pub use generate::{Finish, Generation, GenerationOptions, GenerationRequest};
pub use layer_source::{LayerSource, layer_of};
pub use layerwise::{Checkpointing, LayerwiseBackward};
pub use lora::{Adapters, Lora, Scaling};
pub use on_device::on_device;
pub use policy::{Policy, native_bf16};
pub use rope::{Rope, RopeScaling};
pub use sampling::Sampling;
pub use save::{Companions, UNFINISHED, write_tensors};
pub use targets::{Pattern, Targets};
