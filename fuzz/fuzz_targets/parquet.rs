//! See `fuzz::targets::parquet`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::let_panics_unwind(), |bytes: &[u8]| fuzz::targets::parquet(bytes));
