//! See `fuzz::targets::parquet`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::parquet(bytes));
