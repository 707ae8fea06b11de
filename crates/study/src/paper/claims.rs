//! Tests of the paper's claims on its printed numbers.

use stats::{Tally, sign_test};

use super::overfitting::{checkpoints, largest_deviation};
use super::printed_claim::{PrintedClaim, PrintedVerdict};
use super::trends::{Series, by_noise, by_volume, together};
use super::{Error, PaperTable, further, statements};

/// Change of the mean score when a judge rates the same answers again, as reported by users of FastChat.
const REJUDGING: (f64, f64) = (0.16, 0.20);
const SIGNIFICANT: f64 = 0.05;

/// Returns the tested claims, in the order of the paper's questions.
///
/// # Errors
///
/// Those of [`tables`](super::tables).
pub fn claims(tables: &[PaperTable]) -> Result<Vec<PrintedClaim>, Error> {
    type Read = fn(&[PaperTable]) -> Result<PrintedClaim, Error>;
    let claims: [Read; 20] = [
        acquisition,
        human_preference,
        further::three_annotators,
        further::sensitivity,
        volume,
        ipo_volume,
        noise_on_gair,
        noise_on_others,
        further::flips_beat_clean,
        cdpo,
        further::smoothing,
        ipo_below_dpo,
        further::tuned_beta,
        further::tuned_ipo,
        dpo_overfitting,
        ipo_overfitting,
        further::printed_losses,
        further::other_sets,
        further::figures,
        domains,
    ];
    claims.iter().map(|claim| claim(tables)).collect()
}

fn acquisition(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let table = &tables[0];
    let (llm, human) = (table.column("GPT4-Turbo")?, table.column("Human")?);
    let gap = llm[1] - human[1];
    let lift = (llm[1] - llm[0]).max(llm[0] - human[1]);
    Ok(PrintedClaim {
        place: "Table 1",
        says: statements::DPO_ON_LLM,
        finding: format!(
            "The difference is {gap:.3} points; from SFT the two differ by {} and {}. Over 80 questions {gap:.3} is \
             significant at 5% only if the two policies' scores differ, question by question, with a standard deviation below \
             {:.2} points, and {lift:.3} only below {:.2}. No deviation is printed. Judging the same answers again changes \
             a mean by {} to {:.2}.",
            signed(llm[1] - llm[0]),
            signed(human[1] - human[0]),
            largest_deviation(gap)?,
            largest_deviation(lift)?,
            REJUDGING.0,
            REJUDGING.1
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

/// Returns a number with its sign.
fn signed(difference: f64) -> String {
    format!("{difference:+.3}").replace('-', "−")
}

fn human_preference(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let (wins, ties) = (tables[1].column("# Wins")?, tables[1].column("# Ties")?);
    let count = |value: f64| value.round().max(0.0) as u64;
    let tally = Tally { wins_model_1: count(wins[0]), wins_model_2: count(wins[1]), ties: count(ties[0]) };
    let test = tally.sign_test();
    let (rate, decisive) = (tally.win_rate_interval(0.95)?, tally.decisive_win_rate_interval(0.95)?);
    let verdict = if test.p_value < SIGNIFICANT {
        PrintedVerdict::Survives
    } else {
        PrintedVerdict::NotDistinguishable
    };
    Ok(PrintedClaim {
        place: "Table 2",
        says: "annotators prefer it with a much higher win rate, which supports the scores",
        finding: format!(
            "{} wins against {}, {} ties. Exact sign test of the decisive samples: p = {:.3} (mid-p {:.3}). Win rate {:.1}% \
             [{:.1}, {:.1}]; of the decisive samples {:.1}% [{:.1}, {:.1}], which covers one half. The test treats the two \
             turns of a question as independent, which favors the difference.",
            tally.wins_model_1,
            tally.wins_model_2,
            tally.ties,
            test.p_value,
            test.mid_p_value,
            100.0 * tally.win_rate().unwrap_or_default(),
            100.0 * rate.low,
            100.0 * rate.high,
            100.0 * tally.decisive_win_rate().unwrap_or_default(),
            100.0 * decisive.low,
            100.0 * decisive.high
        ),
        verdict,
    })
}

fn volume(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let series = by_volume(tables)?;
    let (blocks, trend) = together(&series, "DPO")?;
    let smallest =
        series.iter().map(|series| Ok(series.tau()?.p.p_value)).collect::<Result<Vec<_>, Error>>()?;
    let smallest = smallest.into_iter().fold(1.0, f64::min);
    Ok(PrintedClaim {
        place: "Tables 3, 8, 13",
        says: statements::NO_VOLUME_TREND,
        finding: format!(
            "With four volumes no column can show one: a perfect order has p = {:.3}, and the smallest found is {smallest:.3}. \
             The {blocks} DPO columns together, each a block of Page's test: p = {:.3} for a rise, {:.3} for a trend in either \
             direction. No correlation is found; its absence does not follow.",
            1.0 / 12.0,
            trend.p_rising,
            trend.p_two_sided()
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

fn ipo_volume(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let series = by_volume(tables)?;
    let (blocks, trend) = together(&series, "IPO")?;
    let ours: Vec<_> = of_table(series, "Table 3").into_iter().filter(|s| s.loss == "IPO").collect();
    let monotone = ours.iter().map(|s| Ok(s.tau()?.value == -1.0)).collect::<Result<Vec<_>, Error>>()?;
    let verdict =
        if monotone.iter().all(|&one| one) { PrintedVerdict::Contradicted } else { PrintedVerdict::Survives };
    Ok(PrintedClaim {
        place: "Table 3",
        says: "neither DPO nor IPO models demonstrate a monotonic relationship with data volume",
        finding: format!(
            "IPO is strictly monotone under both label sources: every added quarter lowers the score (τ = −1 twice). That is a \
             fact about these numbers, and no trend of IPO: all {blocks} IPO columns of the paper together have p = {:.2} for a \
             fall, and a test of the two that suggested it would be selected by its result. More pairs also mean more \
             optimizer steps, so what falls here may be the score with training, as in Table 5.",
            trend.p_falling
        ),
        verdict,
    })
}

fn noise_on_gair(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let series: Vec<_> = of_table(by_noise(tables)?, "Table 4");
    let (blocks, dpo) = together(&series, "DPO")?;
    let ranges: Vec<f64> = series.iter().filter(|s| s.loss == "DPO").map(Series::range).collect();
    Ok(PrintedClaim {
        place: "Table 4",
        says: statements::NO_NOISE_TREND,
        finding: format!(
            "On GAIR the DPO columns move by {:.3} and {:.3} in all, which re-judging alone may do. The {blocks} columns \
             together: p = {:.2} for a fall with noise. No fall is found; its absence does not follow.",
            ranges.first().copied().unwrap_or_default(),
            ranges.get(1).copied().unwrap_or_default(),
            dpo.p_falling
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

fn noise_on_others(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let all = by_noise(tables)?;
    let series = of_table(all.clone(), "Table 14");
    let (blocks, dpo) = together(&series, "DPO")?;
    let (cdpo_blocks, cdpo) = together(&all, "cDPO")?;
    let ultra = series.iter().find(|series| series.name.contains("UltraFeedback, DPO"));
    let ultra = ultra.map(|series| Ok::<_, Error>(series.tau()?.p.p_value)).transpose()?;
    let verdict = if dpo.p_falling < SIGNIFICANT {
        PrintedVerdict::Contradicted
    } else {
        PrintedVerdict::NotDistinguishable
    };
    Ok(PrintedClaim {
        place: "Tables 12, 14",
        says: statements::NO_NOISE_TREND,
        finding: format!(
            "On UltraFeedback DPO falls at every step (τ = −1, exact p = {:.4}). The {blocks} DPO columns of UltraFeedback and \
             SHP together: p = {:.4} for a fall with noise; the {cdpo_blocks} cDPO columns of all data sets: p {}.",
            ultra.unwrap_or(1.0),
            dpo.p_falling,
            if cdpo.p_falling < 0.0001 { "< 0.0001".to_owned() } else { format!("= {:.4}", cdpo.p_falling) }
        ),
        verdict,
    })
}

fn of_table(series: Vec<Series>, table: &str) -> Vec<Series> {
    series.into_iter().filter(|series| series.name.starts_with(&format!("{table}:"))).collect()
}

/// Returns how often the second column is below and above the first, in some rows.
fn lower(
    table: &PaperTable,
    pairs: [(&str, &str); 2],
    rows: std::ops::Range<usize>,
) -> Result<(u64, u64), Error> {
    let (mut below, mut above) = (0, 0);
    for (first, second) in pairs {
        let (first, second) = (table.column(first)?, table.column(second)?);
        for row in rows.clone() {
            below += u64::from(second[row] < first[row]);
            above += u64::from(second[row] > first[row]);
        }
    }
    Ok((below, above))
}

fn cdpo(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let gair = lower(
        &tables[3],
        [("GPT4-Turbo, Loss = DPO", "GPT4-Turbo, Loss = cDPO"), ("Human, Loss = DPO", "Human, Loss = cDPO")],
        1..5,
    )?;
    let others = lower(
        &tables[13],
        [
            ("UltraFeedback, Loss = DPO", "UltraFeedback, Loss = cDPO"),
            ("SHP, Loss = DPO", "SHP, Loss = cDPO"),
        ],
        1..5,
    )?;
    let at_5_percent = |header: &str| Ok::<_, Error>(tables[8].column(header)?[1]);
    let tuned = [at_5_percent("Human, Loss = DPO (Tuned)")?, at_5_percent("Human, Loss = cDPO (Tuned)")?];
    let p = sign_test(gair.0 + others.0, gair.1 + others.1).p_value;
    let verdict = if p < SIGNIFICANT { PrintedVerdict::Survives } else { PrintedVerdict::NotDistinguishable };
    Ok(PrintedClaim {
        place: "Tables 4, 14",
        says: statements::CDPO_BELOW_DPO,
        finding: format!(
            "cDPO is lower in {} of {} noisy cells on GAIR and in {} of {} on UltraFeedback and SHP; sign test over all of them \
             p = {p:.4}. The cells share questions and judge, so p is too small. At the tuned β (Table 9) the difference is {:.3} \
             points, which is not detectable.",
            gair.0,
            gair.0 + gair.1,
            others.0,
            others.0 + others.1,
            tuned[0] - tuned[1]
        ),
        verdict,
    })
}

fn ipo_below_dpo(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let pairs =
        [("GPT4-Turbo, Loss = DPO", "GPT4-Turbo, Loss = IPO"), ("Human, Loss = DPO", "Human, Loss = IPO")];
    let (below, above) = lower(&tables[2], pairs, 0..3)?;
    let (quarter_below, quarter_above) = lower(&tables[2], pairs, 3..4)?;
    let table = &tables[2];
    let gap = table.column(pairs[0].0)?[0] - table.column(pairs[0].1)?[0];
    Ok(PrintedClaim {
        place: "Table 3",
        says: statements::IPO_BELOW_DPO,
        finding: format!(
            "In {below} of {} cells, by up to {gap:.2} points, which is significant up to a standard deviation of {:.1} points \
             between questions: large enough on any benchmark of 80 questions. At 25% it is the other way round in {quarter_above} \
             of {}.",
            below + above,
            largest_deviation(gap)?,
            quarter_below + quarter_above
        ),
        verdict: PrintedVerdict::Survives,
    })
}

fn dpo_overfitting(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let all = checkpoints(&tables[4])?;
    let human = all.iter().find(|of| of.name == "Human, DPO");
    let drop = human.map_or(0.0, |of| of.drop());
    Ok(PrintedClaim {
        place: "Table 5",
        says: "DPO overfits on human preferences only (section 3.4); it shows no overfitting (abstract)",
        finding: format!(
            "The two sentences differ. On human preferences the score falls by {drop:.3} from its peak, {:.1} half points in 160 \
             ratings; it would be significant only below a standard deviation of {:.2} points between questions. On GPT-4-Turbo's \
             the last checkpoint is the best. Neither overfitting nor its absence is shown.",
            drop * 320.0,
            largest_deviation(drop)?
        ),
        verdict: PrintedVerdict::NotDistinguishable,
    })
}

fn ipo_overfitting(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let all = checkpoints(&tables[4])?;
    let ipo: Vec<_> = all.iter().filter(|of| of.name.ends_with(", IPO")).collect();
    let drops: Vec<String> = ipo.iter().map(|of| format!("{:.3}", of.drop())).collect();
    let smallest = ipo.iter().map(|of| of.drop()).fold(f64::INFINITY, f64::min);
    let falls = ipo.iter().all(|of| of.loss_falls());
    let verdict =
        if falls && smallest > 1.0 { PrintedVerdict::Survives } else { PrintedVerdict::NotDistinguishable };
    Ok(PrintedClaim {
        place: "Table 5",
        says: statements::IPO_OVERFITS,
        finding: format!(
            "Peak minus final is {} while the training loss falls at every checkpoint; the smaller drop is significant up to a \
             standard deviation of {:.1} points between questions. The peak is the first checkpoint, so whether this is \
             overfitting or damage from the start is undecidable without a held-out loss.",
            drops.join(" and "),
            largest_deviation(smallest)?
        ),
        verdict,
    })
}

fn domains(tables: &[PaperTable]) -> Result<PrintedClaim, Error> {
    let summed = domain_sums(&tables[5])?;
    let printed = tables[6].column("# Samples - GAIR (Train)")?;
    let differing: Vec<String> = tables[6]
        .labels()
        .zip(printed)
        .filter_map(|(domain, printed)| {
            let summed = summed.iter().find(|(name, _)| name == domain).map_or(0.0, |(_, sum)| *sum);
            (summed != printed).then(|| format!("{domain} {summed} against {printed}"))
        })
        .collect();
    let total: f64 = tables[5].column("# Samples - GAIR (Train)")?.iter().sum();
    let verdict = if differing.is_empty() { PrintedVerdict::Survives } else { PrintedVerdict::Inconsistent };
    Ok(PrintedClaim {
        place: "Tables 6, 7",
        says: "Table 7 aggregates Table 6",
        finding: format!(
            "{} of {} domains agree; the others do not: {}. Table 6 sums to {total}, the data set has 5240 rows.",
            tables[6].rows.len() - differing.len(),
            tables[6].rows.len(),
            differing.join(", ")
        ),
        verdict,
    })
}

/// Returns the samples by domain of MT-Bench from Table 6; a row with several domains counts in each.
pub(crate) fn domain_sums(mapping: &PaperTable) -> Result<Vec<(String, f64)>, Error> {
    let samples = mapping.column("# Samples - GAIR (Train)")?;
    let mut sums: Vec<(String, f64)> = Vec::new();
    for (row, count) in mapping.rows.iter().zip(samples) {
        for domain in row[1].split(", ") {
            match sums.iter_mut().find(|(name, _)| name == domain) {
                Some((_, sum)) => *sum += count,
                None => sums.push((domain.to_owned(), count)),
            }
        }
    }
    Ok(sums)
}
