#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[doc(no_inline)]
pub use {
    annotate, audit, chat_template, compare, distributed, experiment, hub, human_study, inference,
    llm_client, mtbench, policy_model, pref_data, pref_loss, report, sandbox, seeds, stats, study, trainer,
};
