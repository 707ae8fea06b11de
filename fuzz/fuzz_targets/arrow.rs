//! See `fuzz::targets::arrow`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::arrow(bytes));
