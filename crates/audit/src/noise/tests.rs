//! Coverage of the intervals, on simulated annotators.
