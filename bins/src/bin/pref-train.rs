//! One preference-training run.
fn main() {}
