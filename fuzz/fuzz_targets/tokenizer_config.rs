//! See `fuzz::tokenizer_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::tokenizer_config(bytes));
