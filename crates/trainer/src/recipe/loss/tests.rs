//! Tests of the keys of each loss.

use pref_data::FlipRate;
use pref_loss::{
    AlphaCoefficient, Beta, Divergence, LabelSmoothing, LossSum, LossTerm, PreferenceLoss, TargetMargin,
    TargetSmoothing, Temperature, Weight,
};

use super::LossSection;
use crate::objective::Loss;
use crate::recipe::{LossKind, Recipe, RecipeError};

const SMALLEST: &str = "[model]\npath = \"m\"\n[data]\npath = \"d\"\n[output]\ndir = \"o\"\n";

/// Reads a recipe whose `[loss]` has these lines.
fn parse(loss: &str) -> Result<LossSection, RecipeError> {
    Ok(Recipe::parse("a.toml", &format!("{SMALLEST}[loss]\n{loss}"), &[])?.loss)
}

fn refused(loss: &str) -> String {
    parse(loss).unwrap_err().to_string()
}

fn beta() -> Beta {
    Beta::new(0.2).unwrap()
}

/// Returns the only term of a loss.
fn built(loss: &str) -> PreferenceLoss {
    let section = parse(&format!("beta = 0.2\n{loss}")).unwrap();
    let Some(Loss::Pair(loss)) = section.build().unwrap() else { panic!("{section:?}") };
    let [LossTerm { weight: Weight::ONE, loss }] = *loss.sum.terms else { panic!("{loss:?}") };
    loss
}

#[test]
fn every_kind_has_the_keys_of_its_loss() {
    use PreferenceLoss as L;
    let beta = beta();
    let label_smoothing = LabelSmoothing::new(0.1).unwrap();
    let weight = |value| Weight::new(value).unwrap();
    let gamma = |value| TargetMargin::new(value).unwrap();
    let temperature = |value| Temperature::new(value).unwrap();
    let alpha = Divergence::Alpha(AlphaCoefficient::new(0.5).unwrap());
    let of_exo = TargetSmoothing::new(0.01).unwrap();
    let expected = [
        ("simpo\"", L::Simpo { beta, gamma: gamma(0.5) }),
        ("simpo\"\ngamma = 1", L::Simpo { beta, gamma: gamma(1.0) }),
        ("dpop\"", L::Dpop { beta, lambda: weight(50.0) }),
        ("dpop\"\nlambda = 5", L::Dpop { beta, lambda: weight(5.0) }),
        ("sigmoid_norm\"", L::SigmoidNorm { beta }),
        ("exo_pair\"\nlabel_smoothing = 0.01", L::ExoPair { beta, label_smoothing: of_exo }),
        ("nca_pair\"", L::NcaPair { beta }),
        ("bco_pair\"", L::BcoPair { beta }),
        ("sppo_hard\"", L::SppoHard { beta }),
        ("apo_zero\"", L::ApoZero { beta }),
        ("apo_down\"", L::ApoDown { beta }),
        ("discopop\"", L::Discopop { beta, temperature: temperature(0.05) }),
        ("discopop\"\ntemperature = 1", L::Discopop { beta, temperature: temperature(1.0) }),
        ("cpo\"\nlabel_smoothing = 0.1", L::Cpo { beta, label_smoothing }),
        ("f_dpo\"\ndivergence = \"js\"", L::FDpo { beta, divergence: Divergence::Js }),
        ("f_dpo\"\ndivergence = { alpha = 0.5 }", L::FDpo { beta, divergence: alpha }),
        ("aot\"\nlabel_smoothing = 0.1", L::Aot { beta, label_smoothing }),
        ("aot_unpaired\"\nlabel_smoothing = 0.1", L::AotUnpaired { beta, label_smoothing }),
        ("sigmoid\"", L::Dpo { beta }),
    ];
    for (keys, loss) in expected {
        let keys = format!("kind = \"{keys}");
        assert_eq!(built(&keys), loss, "{keys}");
        assert_eq!(parse(&keys).unwrap().needs_reference(), loss.reads().reference, "{keys}");
    }
    let orpo = parse("kind = \"orpo\"\nlambda = 0.3").unwrap();
    let built = orpo.build().unwrap();
    assert_eq!(built, Some(PreferenceLoss::Orpo { lambda: Weight::new(0.3).unwrap() }.into()));
    assert!(!orpo.needs_reference() && !built.unwrap().reads_reference());
}

#[test]
fn a_key_that_the_loss_does_not_use_is_named() {
    for (loss, message) in [
        ("gamma = 1", "loss.gamma applies only to loss.kind = \"simpo\"; choose that or remove the key"),
        (
            "lambda = 1",
            "loss.lambda applies only to loss.kind = \"orpo\" or \"dpop\"; choose one of them or remove the key",
        ),
        ("temperature = 1", "loss.temperature applies only to loss.kind = \"discopop\""),
        ("divergence = \"js\"", "loss.divergence applies only to loss.kind = \"f_dpo\""),
        ("kind = \"ipo\"\ndynamic_beta = {}", "loss.dynamic_beta applies only to loss.kind = \"dpo\""),
        ("terms = [{ kind = \"dpo\" }]", "loss.terms applies only to loss.kind = \"sum\""),
        ("kind = \"orpo\"\nbeta = 1", "loss.beta does not apply to loss.kind = \"orpo\"; set loss.lambda"),
        ("kind = \"simpo\"\nld_alpha = 0.5", "loss.ld_alpha applies only to losses that compare sums"),
        ("kind = \"kto\"\nwpo = true", "loss.wpo applies only to losses of one pair"),
        ("kind = \"aot\"\nwpo = true", "loss.wpo applies only to losses of one pair"),
        ("wpo = true\ndynamic_beta = {}", "loss.wpo applies only to losses of one pair"),
        ("kind = \"exo_pair\"", "loss.label_smoothing must be above 0 and below 1"),
        ("kind = \"f_dpo\"", "loss.divergence is missing"),
        ("kind = \"sum\"", "loss.terms are missing"),
        (
            "dynamic_beta = { momentum = 1 }",
            "loss.dynamic_beta.momentum is 1.0; it must be at least 0 and below 1",
        ),
        (
            "dynamic_beta = { alpha = -1 }",
            "loss.dynamic_beta.alpha is -1.0; it must be finite and at least 0",
        ),
        ("gama = 1", "did you mean loss.gamma?"),
        ("kind = \"simp\"", "did you mean \"simpo\"?"),
        ("kind = 3", "loss.kind is 3; expected a string"),
    ] {
        let refused = refused(loss);
        assert!(refused.contains(message), "{loss}: {refused}");
        assert!(refused.starts_with("a.toml:"), "{refused}");
    }
}

#[test]
fn a_sum_has_the_terms_of_its_list() {
    let rpo = "kind = \"sum\"\nbeta = 0.2\n[[loss.terms]]\nkind = \"dpo\"\n[[loss.terms]]\nkind = \"sft\"\nweight = 0.5\n";
    let section = parse(rpo).unwrap();
    let dpo = PreferenceLoss::Dpo { beta: beta() };
    let Some(Loss::Pair(loss)) = section.build().unwrap() else { panic!("{section:?}") };
    assert_eq!(loss.sum, LossSum::with_sft(dpo, Weight::new(0.5).unwrap()));
    assert!(section.needs_reference());
    let again = toml::from_str::<LossSection>(&toml::to_string(&section).unwrap()).unwrap();
    assert_eq!(again, section);
    let free = "kind = \"sum\"\nterms = [{ kind = \"cpo\" }, { kind = \"sft\" }]";
    assert!(!parse(free).unwrap().needs_reference());
    for (term, message) in [
        ("kind = \"dpo\", gamma = 1", "loss.terms (number 1): gamma applies only to loss.kind = \"simpo\""),
        ("kind = \"sft\", beta = 1", "loss.terms (number 1): beta does not apply to kind = \"sft\""),
        ("kind = \"kto\"", "loss.terms (number 1): kind \"kto\" is no loss of a sum"),
        ("kind = \"dpo\", weight = 0", "loss.terms have the weight 0"),
        ("weight = 1", "kind is missing"),
    ] {
        let refused = refused(&format!("kind = \"sum\"\nterms = [{{ {term} }}]"));
        assert!(refused.contains(message), "{term}: {refused}");
    }
}

#[test]
fn label_smoothing_of_a_term_follows_the_flip_rate() {
    let loss = "kind = \"sum\"\nterms = [{ kind = \"robust\", label_smoothing = \"flip_rate\" }]";
    let mut section: LossSection = toml::from_str(loss).unwrap();
    assert!(section.build().unwrap_err().to_string().contains("resolve it first"));
    assert!(section.clone().resolve(Some(FlipRate::new(0.5).unwrap())).is_err());
    section.resolve(Some(FlipRate::new(0.25).unwrap())).unwrap();
    assert!(section.build().unwrap().is_some());
}

#[test]
fn a_study_takes_the_keys_of_each_loss_from_one_section() {
    let text = "label_smoothing = 0.1\nlogp_reduction = \"mean\"\ngamma = 1\nld_alpha = 0.5\nwpo = true\n\
                desirable_weight = 2\ndivergence = \"js\"\nterms = [{ kind = \"dpo\" }]";
    let section: LossSection = toml::from_str(text).unwrap();
    for kind in LossKind::ALL {
        section.of_kind(kind, beta()).check().unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
    }
    let default = LossSection::default();
    assert_eq!(section.of_kind(LossKind::Kto, beta()).desirable_weight, Weight::new(2.0).unwrap());
    let orpo = LossSection { kind: LossKind::Orpo, lambda: Weight::new(0.2).ok(), ..default.clone() };
    assert_eq!(LossSection { wpo: false, ..section.of_kind(LossKind::Orpo, beta()) }, orpo);
    assert_eq!(orpo.strength(), beta());
    let ipo = section.of_kind(LossKind::Ipo, beta());
    assert_eq!((ipo.ld_alpha, ipo.wpo, ipo.label_smoothing), (None, true, default.label_smoothing));
    assert!(section.of_kind(LossKind::Dpo, beta()).ld_alpha.is_some());
}
