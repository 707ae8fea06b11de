//! Supervised and preference training of policies.

#![forbid(unsafe_code)]
