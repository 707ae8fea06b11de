//! See `fuzz::targets::template`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::template(bytes));
