//! An offline world with a known answer.

#![forbid(unsafe_code)]
