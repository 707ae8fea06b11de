//! Gradients that begin with one given, against those of a product with it.

use tch::{Device, Kind, Tensor};
use torch_ext::{TorchExtError, gradients};

fn operands(kind: Kind) -> [Tensor; 4] {
    let numbers = |shape: &[i64]| {
        let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        (at * 12.9898).sin().view(shape).to_kind(kind)
    };
    let [x, weight, unused] =
        [&[5, 8][..], &[8, 3], &[2]].map(|shape| numbers(shape).set_requires_grad(true));
    [x, weight, unused, numbers(&[5, 3]).square()]
}

#[test]
fn they_have_the_bits_of_a_products() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        let [x, weight, unused, gradient] = operands(kind);
        let output = || x.matmul(&weight).tanh();
        let expected = {
            let root = (output() * &gradient).sum(Kind::Float);
            Tensor::run_backward(&[root], &[&x, &weight], false, false)
        };
        let found = gradients(&output(), &gradient, &[&x, &unused, &weight]).unwrap();
        assert!(found[1].is_none(), "nothing leads there");
        for (found, expected) in [&found[0], &found[2]].into_iter().zip(&expected) {
            assert!(found.as_ref().unwrap().equal(expected), "{kind:?}");
        }
        assert!(!x.grad().defined(), "nothing gathers at a leaf");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [x, weight, _, gradient] = operands(Kind::Float);
    let output = x.matmul(&weight);
    let refused = |gradient: &Tensor| gradients(&output, gradient, &[&x]).unwrap_err();
    assert!(matches!(refused(&gradient.to_kind(Kind::Double)), TorchExtError::Kind { .. }));
    assert!(matches!(refused(&gradient.narrow(0, 0, 4)), TorchExtError::Shape { .. }));
    let asks_for_none = gradients(&output.detach(), &gradient, &[&x]).unwrap_err();
    assert!(matches!(asks_for_none, TorchExtError::Torch { .. }), "{asks_for_none}");
    assert!(gradients(&output, &gradient, &[&x]).is_ok(), "the graph is still there");
    let again = gradients(&output, &gradient, &[&x]).unwrap_err();
    assert!(matches!(again, TorchExtError::Torch { .. }), "{again}");
}
