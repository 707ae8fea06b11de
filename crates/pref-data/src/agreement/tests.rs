//! Agreement against numbers from elsewhere, and slices.

use super::*;
use crate::view::tests::record;

#[test]
fn the_matrix_is_symmetric_and_counts_shared_records_only() {
    let [first, second] = [Label::Prefers(0), Label::Prefers(1)];
    let records = [
        record("a", 2, &[("h", first), ("m", first)]),
        record("b", 2, &[("h", second), ("m", second)]),
        record("c", 2, &[("h", first), ("m", second), ("z", Label::Tie)]),
        record("d", 3, &[("h", Label::Prefers(2))]),
        record("e", 2, &[("m", first)]),
    ];
    let matrix = AgreementMatrix::of(&records);
    assert_eq!(matrix.annotators, ["h", "m", "z"]);
    let agreement = matrix.between("m", "h").expect("three shared records");
    assert_eq!(Some(agreement), matrix.between("h", "m"));
    assert_eq!((agreement.items, agreement.raters), (3, 2));
    // Observed 2/3; the shares of the categories are 3/6 and 3/6, so that chance gives 1/2: Scott's π is 1/3.
    assert!((agreement.observed - 2.0 / 3.0).abs() < 1e-12);
    assert!((agreement.kappa.value().expect("two categories") - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(matrix.between("h", "z").expect("one record").observed, 0.0);
    assert_eq!(matrix.between("h", "h"), None);
    assert_eq!(matrix.between("h", "nobody"), None);
    assert_eq!(AgreementMatrix::of(&[]).annotators.len(), 0);
}

#[test]
fn slices_part_the_records_that_both_labelled() {
    let slice = |text: &str| AgreementSlice::try_from(text.to_owned()).expect("a slice");
    let [first, second] = [Label::Prefers(0), Label::Prefers(1)];
    let records = vec![
        record("a", 2, &[("human", first), ("gpt-4-1106-preview", first)]),
        record("b", 2, &[("human", first), ("gpt-4-1106-preview", second)]),
        record("c", 2, &[("human", Label::Tie), ("gpt-4-1106-preview", Label::Tie)]),
        record("d", 2, &[("human", first)]),
    ];
    let ids = |text: &str| {
        let kept = slice(text).of(records.clone()).expect("both are known");
        kept.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(ids("human = gpt-4-turbo"), ["a", "c"]);
    assert_eq!(ids("human!=gpt-4-1106-preview"), ["b"]);
    assert!(slice("human = nobody").of(records.clone()).is_err());
    assert_eq!(slice("a!=b").to_string(), "a != b");
    for bad in ["human", "= b", "a !=", "a = a", ""] {
        let error = AgreementSlice::try_from(bad.to_owned()).expect_err(bad).to_string();
        assert!(error.contains("it must be \"A = B\" or \"A != B\""), "{error}");
    }
}
