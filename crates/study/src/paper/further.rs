//! Claims on tuned settings, on other data sets, and on what the paper does not print.

use super::losses::{least_dpo_margin, least_ipo_margin};
use super::power::{DEVIATIONS, power};
use super::printed_claim::{PrintedClaim, PrintedVerdict};
use super::raters::three_way_splits;
use super::selection::expected_best;
use super::trends::{by_volume, together};
use super::{Error, PaperTable};

/// Settings of β that the paper tries.
const SETTINGS: u32 = 11;
const KAPPA: f64 = 0.64;

pub(super) fn sensitivity(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let (llm, human) = (tables[0].column("GPT4-Turbo")?, tables[0].column("Human")?);
    let (gain, loss) = (llm[1] - llm[0], human[1] - human[0]);
    Ok(PrintedClaim {
        place: "Tables 1, 3, 4",
        says: "neither volume nor flipped labels matter to DPO on GAIR",
        finding: format!(
            "A study that shows no effect must be able to show one. The effect of clean labels, DPO − SFT, is {} and {} here; \
             at a paired standard deviation of {} points the larger one has a power of {:.0}%. If clean labels do no visible \
             good, flipped or fewer labels cannot do visible harm. The null results on GAIR are not interpretable.",
            signed(gain),
            signed(loss),
            DEVIATIONS[0],
            100.0 * power(gain, DEVIATIONS[0])?
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn three_annotators(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let (wins, ties) = (tables[1].column("# Wins")?, tables[1].column("# Ties")?);
    let counts = [wins[0], wins[1], ties[0]];
    let items: f64 = counts.iter().sum();
    let (expected, none) = three_way_splits(KAPPA, counts.map(|count| count / items), items);
    Ok(PrintedClaim {
        place: "Table 2",
        says: "the majority vote of three annotators decides each sample, with κ = 0.64",
        finding: format!(
            "Three annotators with three choices can split three ways, which no majority decides. At κ = {KAPPA} about \
             {expected:.1} of {items} samples are expected to, and none with probability {none:.3}. Wins and ties add up to \
             {items}, so split samples are not reported; as ties or as wins, they change the win rates by up to 2 points."
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn tuned_beta(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let tuned = tables[7].column("Human, Loss = DPO (Tuned)")?[0];
    let gain = tuned - tables[0].column("Human")?[1];
    // The scores of two settings differ by the paired deviation, so each varies by its part 1/√2.
    let by_chance = |deviation: f64| -> Result<f64, Error> {
        Ok(expected_best(SETTINGS)? * deviation / 2.0_f64.sqrt() / 80.0_f64.sqrt())
    };
    Ok(PrintedClaim {
        place: "Tables 5, 8",
        says: "tuning β improves DPO on human preferences significantly",
        finding: format!(
            "The gain is {}, of the best of {SETTINGS} settings on the questions that chose it. The best of {SETTINGS} equal \
             settings gains {:.2} to {:.2} points over a given one at paired standard deviations of {} to {}. What is left \
             has a power of {:.0}% or less. Choose β on other questions or held-out pairs.",
            signed(gain),
            by_chance(DEVIATIONS[0])?,
            by_chance(DEVIATIONS[2])?,
            DEVIATIONS[0],
            DEVIATIONS[2],
            100.0 * power(gain - by_chance(DEVIATIONS[0])?, DEVIATIONS[0])?
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn tuned_ipo(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let [dpo, ipo] = ["DPO", "IPO"].map(|loss| tables[7].column(&format!("Human, Loss = {loss} (Tuned)")));
    let (dpo, ipo) = (dpo?, ipo?);
    let differences: Vec<String> = ipo.iter().zip(&dpo).map(|(ipo, dpo)| signed(ipo - dpo)).collect();
    let gain = ipo[0] - tables[0].column("Human")?[2];
    Ok(PrintedClaim {
        place: "Table 8",
        says: "DPO still outperforms IPO after tuning β",
        finding: format!(
            "Tuned IPO − tuned DPO is {} at 100%, 75%, 50% and 25% of the pairs: at most {:.0}% power at a paired standard \
             deviation of {} points. The tuned IPO gains {} over the default β, far beyond selection, so the collapse of IPO \
             is one of β = 0.1 with summed log-probabilities, not of the loss.",
            differences.join(", "),
            100.0 * power((ipo[2] - dpo[2]).abs(), DEVIATIONS[0])?,
            DEVIATIONS[0],
            signed(gain)
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn flips_beat_clean(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let at = |source: &str, loss: &str| tables[3].column(&format!("{source}, Loss = {loss}"));
    let gain = |column: &[f64], level: usize, from: usize| column[level] - column[from];
    let (llm, human) = (at("GPT4-Turbo", "DPO")?, at("Human", "DPO")?);
    let cdpo = [at("GPT4-Turbo", "cDPO")?, at("Human", "cDPO")?].map(|column| signed(gain(&column, 3, 2)));
    let [first, second] = [gain(&llm, 2, 0), gain(&human, 2, 0)];
    Ok(PrintedClaim {
        place: "Table 4",
        says: "DPO with 25% flips outperforms clean data; cDPO at 50% outperforms 25%",
        finding: format!(
            "DPO: {} and {}, which are {:.0} and {:.0} half points in 160 ratings. cDPO: {}. None could be seen in \
             80 questions: the largest has a power of {:.0}%.",
            signed(first),
            signed(second),
            320.0 * first,
            320.0 * second,
            cdpo.join(" and "),
            100.0 * power(gain(&at("Human", "cDPO")?, 3, 2), DEVIATIONS[0])?
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn smoothing(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let pairs = [
        (3, "GPT4-Turbo, Loss = DPO", "GPT4-Turbo, Loss = cDPO"),
        (3, "Human, Loss = DPO", "Human, Loss = cDPO"),
        (8, "Human, Loss = DPO (Tuned)", "Human, Loss = cDPO (Tuned)"),
        (13, "UltraFeedback, Loss = DPO", "UltraFeedback, Loss = cDPO"),
        (13, "SHP, Loss = DPO", "SHP, Loss = cDPO"),
    ];
    let (mut equal, mut half) = (0, Vec::new());
    let baseline = tables[0].column("Human")?[0];
    for (table, dpo, cdpo) in pairs {
        let (dpo, cdpo) = (tables[table].column(dpo)?, tables[table].column(cdpo)?);
        equal += usize::from(dpo[0] == cdpo[0]);
        half.extend(cdpo.get(3).map(|score| signed(score - baseline)));
    }
    Ok(PrintedClaim {
        place: "Tables 4, 9, 14",
        says: "cDPO is trained with some ε, which the paper does not state",
        finding: format!(
            "cDPO equals DPO at 0% flips in {equal} of {} columns, to three digits. A fixed ε > 0 is another loss, whose score \
             differs; equality needs ε = 0 there, as the rule ε = flip rate gives, or copied cells. At 50% flips that rule \
             asks for a margin of 0, so the policy would stay at SFT; cDPO is {} from it. At 75% it reverses the labels, \
             which would restore clean ones, but the scores fall further. `loss.label_smoothing = \"flip_rate\"` trains by \
             that rule, a number by a fixed ε.",
            pairs.len(),
            half.join(", ")
        ),
        verdict: PrintedVerdict::Inconsistent,
    })
}

pub(super) fn printed_losses(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let last = |header: &str| -> Result<f64, Error> {
        Ok(tables[4].column(&format!("{header}, Training Loss"))?.last().copied().unwrap_or_default())
    };
    let [llm, human] = [last("GPT4-Turbo, Loss = IPO")?, last("Human, Loss = IPO")?];
    let dpo = last("GPT4-Turbo, Loss = DPO")?;
    Ok(PrintedClaim {
        place: "Table 5",
        says: "IPO with β = 0.1 is trained as published",
        finding: format!(
            "At β = 0.1 the IPO loss starts at 25. The last losses, {llm} and {human}, need mean margins of at least {:.1} and \
             {:.1} nats; DPO's {dpo} needs {:.0}. Margins of several nats a token are out of reach, so the code sums \
             log-probabilities over tokens, as its stack did before 2024. It averages them since, which makes β = 0.1 another \
             setting: `loss.logp_reduction`.",
            least_ipo_margin(llm, 0.1),
            least_ipo_margin(human, 0.1),
            least_dpo_margin(dpo, 0.1)
        ),
        verdict: PrintedVerdict::Survives,
    })
}

pub(super) fn other_sets(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let gains = ["UltraFeedback", "SHP"].map(|set| -> Result<f64, Error> {
        let column = tables[9].column(set)?;
        Ok(column[1] - column[0])
    });
    let [ultra, shp] = gains;
    let (ultra, shp) = (ultra?, shp?);
    let largest = power(ultra.abs().max(shp.abs()), DEVIATIONS[0])?;
    let series: Vec<_> = by_volume(tables)?
        .into_iter()
        .filter(|series| series.name.starts_with("Table 13") && series.loss == "DPO")
        .collect();
    let (blocks, trend) = together(&series, "DPO")?;
    Ok(PrintedClaim {
        place: "Tables 10, 11",
        says: "DPO improves on UltraFeedback and not on SHP; volume does not matter on either",
        finding: format!(
            "DPO − SFT is {} and {}: a power of at most {:.0}% at a paired standard deviation of {} points. The {blocks} volume \
             columns together: p = {:.2} for a trend in either direction, from four levels each.",
            signed(ultra),
            signed(shp),
            100.0 * largest,
            DEVIATIONS[0],
            trend.p_two_sided()
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

pub(super) fn figures(_: &[PaperTable]) -> Result<PrintedClaim, Error> {
    Ok(PrintedClaim {
        place: "Figures 1–4",
        says: "differences are not uniformly distributed across domains",
        finding: "The figures print no numbers. A domain has ten questions, so its interval is about 2.8 times as wide as the \
                  benchmark's, and three or four comparisons are selected from all. Nothing can be tested."
            .to_owned(),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

/// Returns a number with its sign.
fn signed(difference: f64) -> String {
    format!("{difference:+.3}").replace('-', "−")
}
