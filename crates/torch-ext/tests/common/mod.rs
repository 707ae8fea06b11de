//! Helpers of several tests.

use torch_ext::InstructionSet;

/// Runs `body` with each instruction set that the kernels are compiled for, and reports those that this processor lacks.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
pub(crate) fn on_each_instruction_set(body: impl Fn()) {
    for set in InstructionSet::ALL {
        if set.force(&body).is_none() {
            eprintln!("skipped: this processor does not have the instruction set {set:?}");
        }
    }
}
