//! What is refused, and in which words.

use pref_loss::{Beta, LabelSmoothing, PairBatch, PairLogps, PairTokens, PreferenceLoss};

fn refusal(policy: PairLogps<'_, f64>, reference: PairLogps<'_, f64>, tokens: PairTokens<'_>) -> String {
    PairBatch::new(policy, reference, tokens).unwrap_err().to_string()
}

const LOGPS: PairLogps<'static, f64> = PairLogps { chosen: &[-20.0, -31.0], rejected: &[-25.0, -30.0] };
const TOKENS: PairTokens<'static> = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };

#[test]
fn batches_of_different_lengths_are_errors() {
    assert_eq!(
        refusal(LOGPS, PairLogps { rejected: &[-25.0], ..LOGPS }, TOKENS),
        "the reference log-probs of the rejected responses are 1, but the batch has 2 pairs: give one per pair"
    );
    assert_eq!(
        refusal(LOGPS, LOGPS, PairTokens { chosen: &[9, 12, 3], ..TOKENS }),
        "the token counts of the chosen responses are 3, but the batch has 2 pairs: give one per pair"
    );
    assert_eq!(
        refusal(LOGPS, LOGPS, PairTokens { rejected: &[11, 0], ..TOKENS }),
        "the rejected response of pair 1 has no tokens: drop the pair, or truncate its prompt instead"
    );
}

#[test]
fn non_finite_log_probs_are_errors() {
    assert_eq!(
        refusal(PairLogps { chosen: &[-20.0, f64::NAN], ..LOGPS }, LOGPS, TOKENS),
        "the policy's log-prob of chosen response 1 is NaN: look for NaN in the weights or a diverged run"
    );
    assert_eq!(
        refusal(LOGPS, PairLogps { rejected: &[f64::NEG_INFINITY, -30.0], ..LOGPS }, TOKENS),
        "the reference's log-prob of rejected response 0 is -inf: look for NaN in the weights or a \
         diverged run"
    );
}

#[test]
fn parameters_out_of_range_are_errors() {
    for value in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        assert!(Beta::new(value).is_err(), "beta {value}");
    }
    for value in [-0.01, 1.01, f64::NAN] {
        assert!(LabelSmoothing::new(value).is_err(), "label smoothing {value}");
    }
    assert_eq!(
        Beta::new(0.0).unwrap_err().to_string(),
        "beta is 0: it must be finite and above 0 (0.1 is usual)"
    );
    assert_eq!(
        LabelSmoothing::new(1.5).unwrap_err().to_string(),
        "label_smoothing is 1.5: it must be a probability in [0, 1], in practice below 0.5"
    );
    assert!(LabelSmoothing::new(0.5).unwrap().is_degenerate());
    assert!(!LabelSmoothing::new(0.499).unwrap().is_degenerate());
}

#[test]
fn deserialization_validates_parameters() {
    let read = |text: &str| serde_json::from_str::<PreferenceLoss>(text);
    let loss = read(r#"{"kind": "cdpo", "beta": 0.1, "label_smoothing": 0.2}"#).unwrap();
    assert_eq!(loss.name(), "cdpo");
    assert_eq!(read(&serde_json::to_string(&loss).unwrap()).unwrap(), loss);
    assert!(read(r#"{"kind": "dpo", "beta": 0}"#).unwrap_err().to_string().contains("beta is 0"));
    assert!(
        read(r#"{"kind": "dpo", "beta": 0.1, "label_smoothing": 0.2}"#).is_err(),
        "DPO takes no smoothing"
    );
    assert!(read(r#"{"kind": "ipo", "beta": 0.1}"#).is_err(), "IPO's reduction is always said");
}
