//! See `fuzz::fastchat`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::fastchat(bytes));
