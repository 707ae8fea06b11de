//! Draws the gradient of each loss as one SVG: `cargo run -p pref-loss --no-default-features --example gradient_plots
//! -- docs/losses.svg`.
//!
//! The x axis of a panel is the margin h, with a = h/2 and b = −h/2. The curves are −∂L/∂a of the chosen and ∂L/∂b of
//! the rejected response, both divided by β.

use std::fmt::Write as _;
use std::process::ExitCode;

use pref_loss::{Beta, KlEstimate, KtoBatch, KtoLoss, KtoOutput, PreferenceLoss, Weight};

/// The losses in serialized form, with their titles.
const PANELS: [(&str, &str); 26] = [
    ("DPO", r#"{"kind":"dpo","beta":0.1}"#),
    ("cDPO, ε = 0.1", r#"{"kind":"cdpo","beta":0.1,"label_smoothing":0.1}"#),
    ("cDPO, ε = 0.3", r#"{"kind":"cdpo","beta":0.1,"label_smoothing":0.3}"#),
    ("robust, ε = 0.1", r#"{"kind":"robust","beta":0.1,"label_smoothing":0.1}"#),
    ("robust, ε = 0.3", r#"{"kind":"robust","beta":0.1,"label_smoothing":0.3}"#),
    ("IPO (÷ 100)", r#"{"kind":"ipo","beta":0.1,"reduction":"sum"}"#),
    ("hinge", r#"{"kind":"hinge","beta":0.1}"#),
    ("SimPO, γ = 1", r#"{"kind":"simpo","beta":0.1,"gamma":1.0}"#),
    ("DPOP, λ = 5 (÷ 5)", r#"{"kind":"dpop","beta":0.1,"lambda":5.0}"#),
    ("sigmoid_norm", r#"{"kind":"sigmoid_norm","beta":0.1}"#),
    ("EXO, ε = 0.001", r#"{"kind":"exo_pair","beta":0.1,"label_smoothing":0.001}"#),
    ("EXO, ε = 0.1", r#"{"kind":"exo_pair","beta":0.1,"label_smoothing":0.1}"#),
    ("NCA", r#"{"kind":"nca_pair","beta":0.1}"#),
    ("BCO", r#"{"kind":"bco_pair","beta":0.1}"#),
    ("SPPO (÷ 100)", r#"{"kind":"sppo_hard","beta":0.1}"#),
    ("APO-zero", r#"{"kind":"apo_zero","beta":0.1}"#),
    ("APO-down", r#"{"kind":"apo_down","beta":0.1}"#),
    ("DiscoPOP, τ = 0.05", r#"{"kind":"discopop","beta":0.1,"temperature":0.05}"#),
    ("CPO", r#"{"kind":"cpo","beta":0.1,"label_smoothing":0.0}"#),
    ("SFT (not ÷ β)", r#"{"kind":"sft"}"#),
    ("AOT unpaired, one pair", r#"{"kind":"aot_unpaired","beta":0.1,"label_smoothing":0.0}"#),
    ("AOT, one pair", r#"{"kind":"aot","beta":0.1,"label_smoothing":0.0}"#),
    ("f-DPO, JS", r#"{"kind":"f_dpo","beta":0.1,"divergence":"js"}"#),
    ("f-DPO, forward KL (cut)", r#"{"kind":"f_dpo","beta":0.1,"divergence":"forward_kl"}"#),
    ("f-DPO, α = 0.9", r#"{"kind":"f_dpo","beta":0.1,"divergence":{"alpha":0.9}}"#),
    ("ORPO, λ = 0.1 (a, b = −1 ± h/70)", r#"{"kind":"orpo","lambda":0.1}"#),
];
const COLUMNS: usize = 4;
const PANEL: [f64; 2] = [250.0, 170.0];
const PLOT: [f64; 2] = [200.0, 110.0];
/// Margins from −60 to 60 nats, βh from −6 to 6.
const REACH: f64 = 60.0;
/// Range of the y axis, in units of β.
const PUSHES: [f64; 2] = [-1.5, 2.0];
const COLORS: [&str; 2] = ["#1b6ca8", "#c2552d"];

#[expect(clippy::print_stderr, reason = "an example prints its errors")]
fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: gradient_plots FILE.svg");
        return ExitCode::from(2);
    };
    if let Err(error) = std::fs::write(&path, drawing()) {
        eprintln!("cannot write {path}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn drawing() -> String {
    let rows = (PANELS.len() + 1).div_ceil(COLUMNS);
    let (width, height) = (PANEL[0] * COLUMNS as f64 + 15.0, PANEL[1] * rows as f64 + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let legend = [
        "gradient step of the chosen response, −∂L/∂a ÷ β",
        "gradient step of the rejected response, ∂L/∂b ÷ β",
    ];
    for (i, (text, color)) in legend.into_iter().zip(COLORS).enumerate() {
        let x = 40.0 + 330.0 * i as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{x} 18h24\" stroke=\"{color}\" stroke-width=\"2\"{}/><text x=\"{}\" y=\"22\">{text}</text>",
            dash(i),
            x + 30.0
        );
    }
    let paired = PANELS.into_iter().map(|(title, loss)| {
        let loss: PreferenceLoss = serde_json::from_str(loss).expect("each panel holds a loss");
        panel(title, |place| pushes(&loss, place))
    });
    let panels = paired.chain([panel("KTO, z = 0, one of each", kto_pushes)]);
    for (i, panel) in panels.enumerate() {
        let x = PANEL[0] * (i % COLUMNS) as f64 + 35.0;
        let y = PANEL[1] * (i / COLUMNS) as f64 + 60.0;
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">{panel}</g>");
    }
    svg + "</svg>\n"
}

/// The second curve is dashed: where both run together, both are seen.
fn dash(curve: usize) -> &'static str {
    ["", " stroke-dasharray=\"4 3\""][curve]
}

fn panel(title: &str, pushes: impl Fn(f64) -> [f64; 3]) -> String {
    let [width, height] = PLOT;
    let y = |push: f64| {
        let [low, high] = PUSHES;
        height * (high - push.clamp(low, high)) / (high - low)
    };
    let mut svg = format!(
        "<text x=\"0\" y=\"-6\" font-weight=\"bold\">{title}</text>\
         <rect width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#bbb\"/>\
         <path d=\"M0 {zero:.1}H{width}M{middle} 0V{height}\" stroke=\"#ddd\"/>",
        zero = y(0.0),
        middle = width / 2.0,
    );
    for push in [-1.0, 0.0, 1.0, 2.0] {
        let _ = write!(svg, "<text x=\"-4\" y=\"{:.1}\" text-anchor=\"end\">{push}</text>", y(push) + 4.0);
    }
    for (share, h) in [(0.0, "−60"), (0.5, "0"), (1.0, "h = 60")] {
        let x = width * share;
        let _ = write!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{h}</text>", height + 14.0);
    }
    let points: Vec<[f64; 3]> = (0..=240).map(|step| pushes(f64::from(step) / 120.0 - 1.0)).collect();
    for (curve, color) in COLORS.into_iter().enumerate() {
        let path: Vec<String> = (points.iter())
            .map(|point| format!("{:.1} {:.1}", width * (point[0] + 1.0) / 2.0, y(point[curve + 1])))
            .collect();
        let _ = write!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{}/>",
            path.join("L"),
            dash(curve)
        );
    }
    svg
}

/// Returns the position on the x axis and both gradients.
fn pushes(loss: &PreferenceLoss, place: f64) -> [f64; 3] {
    let half = place * REACH / 2.0;
    let (a, b) = match loss {
        PreferenceLoss::Orpo { .. } => (-1.0 + half / 35.0, -1.0 - half / 35.0),
        _ => (half, -half),
    };
    let at = loss.at(a, b);
    let unit = match loss {
        PreferenceLoss::Orpo { .. } => 1.0,
        PreferenceLoss::Sft => 1.0,
        PreferenceLoss::Ipo { .. } | PreferenceLoss::SppoHard { .. } => 10.0,
        PreferenceLoss::Dpop { .. } => 0.5,
        _ => 0.1,
    };
    [place, -at.chosen_grad / unit, at.rejected_grad / unit]
}

/// Returns the same for KTO: a desirable response at h/2 and an undesirable one at −h/2.
fn kto_pushes(place: f64) -> [f64; 3] {
    let half = place * REACH / 2.0;
    let loss = KtoLoss { beta: Beta::DEFAULT, desirable: Weight::ONE, undesirable: Weight::ONE };
    let batch = [half, -half];
    let batch = KtoBatch::new(&batch, &[0.0, 0.0], &[true, false]).expect("two responses");
    let mut out = KtoOutput::default();
    loss.evaluate(&batch, KlEstimate::ZERO, &mut out);
    [place, -out.grads()[0] / loss.beta.get(), out.grads()[1] / loss.beta.get()]
}
