//! See `fuzz::targets::verdict`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::verdict(bytes));
