//! See `fuzz::targets::fastchat`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::fastchat(bytes));
