//! See `fuzz::targets::tokenizer_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::let_panics_unwind(), |bytes: &[u8]| fuzz::targets::tokenizer_json(bytes));
