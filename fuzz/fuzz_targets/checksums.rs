//! See `fuzz::checksums`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::checksums(bytes));
