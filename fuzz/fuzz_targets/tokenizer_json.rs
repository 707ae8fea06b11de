//! See `fuzz::targets::tokenizer_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::tokenizer_json(bytes));
