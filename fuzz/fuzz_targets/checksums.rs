//! See `fuzz::targets::checksums`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::checksums(bytes));
