//! Preference-optimisation losses with closed-form gradients.

#![forbid(unsafe_code)]
