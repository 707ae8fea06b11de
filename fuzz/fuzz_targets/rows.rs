//! See `fuzz::targets::rows`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::rows(bytes));
