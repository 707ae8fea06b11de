//! See `fuzz::torch_targets::safetensors`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::torch_targets::safetensors(bytes));
