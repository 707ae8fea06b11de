//! What can be known from a few questions: intervals, tallies, agreement.

#![forbid(unsafe_code)]
