//! Claims of the paper that both its printed tables and a study can test.

pub(crate) const DPO_ON_LLM: &str = "DPO on GPT-4-Turbo's preferences outperforms DPO on human preferences";
pub(crate) const IPO_BELOW_DPO: &str = "IPO underperforms DPO at 100%, 75% and 50% of the pairs";
pub(crate) const CDPO_BELOW_DPO: &str = "cDPO does not fare better than DPO under flip noise";
pub(crate) const IPO_OVERFITS: &str = "IPO at β = 0.1 overfits";
pub(crate) const NO_VOLUME_TREND: &str = "performance shows no correlation with data volume";
pub(crate) const NO_NOISE_TREND: &str = "performance shows no correlation with data quality";
