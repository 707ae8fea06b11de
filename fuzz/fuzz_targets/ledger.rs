//! See `fuzz::targets::ledger`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::ledger(bytes));
