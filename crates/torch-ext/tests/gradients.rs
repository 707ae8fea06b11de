//! Backward passes with a given gradient, against those of a product with it, and their sums.

use tch::{Device, Kind, Tensor};
use torch_ext::{TorchExtError, gather_gradients};

fn operands(kind: Kind) -> [Tensor; 4] {
    let numbers = |shape: &[i64]| {
        let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        (at * 12.9898).sin().view(shape).to_kind(kind)
    };
    let [x, weight, unused] =
        [&[5, 8][..], &[8, 3], &[2]].map(|shape| numbers(shape).set_requires_grad(true));
    [x, weight, unused, numbers(&[5, 3]).square()]
}

fn sums(leaves: &[&Tensor]) -> Vec<Tensor> {
    leaves.iter().map(|leaf| Tensor::full(leaf.size(), 0.25, (Kind::Float, leaf.device()))).collect()
}

#[test]
fn gradients_are_added_and_match_those_of_a_product() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        let [x, weight, unused, gradient] = operands(kind);
        let output = || x.matmul(&weight).tanh();
        let expected = {
            let root = (output() * &gradient).sum(Kind::Float);
            Tensor::run_backward(&[root], &[&x, &weight], false, false)
        };
        let leaves = [&unused, &weight];
        let mut sums = sums(&leaves);
        let grad_x = gather_gradients(&output(), &gradient, &x, &leaves, &mut sums).unwrap();
        assert!(grad_x.unwrap().equal(&expected[0]), "{kind:?}");
        assert!(sums[0].equal(&sums[0].full_like(0.25)), "the graph does not reach it");
        // The sum is rounded once.
        let sum = (expected[1].to_kind(Kind::Double) + 0.25).to_kind(Kind::Float);
        assert!((&sums[1] - sum).abs().max().double_value(&[]) < 1e-6, "{kind:?}");
        assert!(!x.grad().defined() && !weight.grad().defined(), "leaves have no gradients");
        let grad_unused = gather_gradients(&output(), &gradient, &unused, &[], &mut []).unwrap();
        assert!(grad_unused.is_none(), "the graph does not reach it");
    }
}

/// A function of `x` `[5, 8]`, a matrix and a row.
type Graph = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

#[test]
fn graphs_of_any_shape_are_differentiated() {
    let forms: [(&str, Graph); 6] = [
        ("a chain", |x, weight, _| x.matmul(weight).tanh()),
        ("a chain with a broadcast row", |x, weight, row| (x.matmul(weight) + row).tanh()),
        ("a chain with a leaf twice", |x, weight, row| (x.matmul(weight) * row).tanh() + row),
        ("paths that join", |x, weight, row| {
            let y = x.matmul(weight) * row;
            &y + y.tanh()
        }),
        ("an input with two uses", |x, weight, row| (x * x).matmul(weight) + row),
        ("reordered and repeated rows", |x, weight, _| {
            x.tanh().index_select(0, &Tensor::from_slice(&[3i64, 0, 3, 4, 1])).matmul(weight)
        }),
    ];
    for (what, graph) in forms {
        let [x, weight, _, gradient] = operands(Kind::Float);
        let row = Tensor::from_slice(&[0.5f32, -1.0, 2.0]).set_requires_grad(true);
        let leaves = [&weight, &row];
        let mut sums = sums(&leaves);
        let grad_x = gather_gradients(&graph(&x, &weight, &row), &gradient, &x, &leaves, &mut sums).unwrap();
        let root = (graph(&x, &weight, &row) * &gradient).sum(Kind::Float);
        root.backward();
        assert!((grad_x.unwrap() - x.grad()).abs().max().double_value(&[]) < 1e-6, "{what}");
        for (leaf, sum) in leaves.into_iter().zip(&sums) {
            let expected = leaf.grad();
            let expected = if expected.defined() { expected + 0.25 } else { sum.full_like(0.25) };
            assert!((sum - expected).abs().max().double_value(&[]) < 1e-5, "{what}");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_errors_and_add_nothing() {
    let [x, weight, _, gradient] = operands(Kind::Float);
    let output = x.matmul(&weight);
    let with = |output: &Tensor, gradient: &Tensor, sum: Tensor| {
        gather_gradients(output, gradient, &x, &[&weight], &mut [sum])
    };
    let sum = || weight.detach().zeros_like();
    let refused = |gradient: &Tensor, sum: Tensor| with(&output, gradient, sum).unwrap_err();
    assert!(matches!(refused(&gradient.to_kind(Kind::Double), sum()), TorchExtError::Kind { .. }));
    assert!(matches!(refused(&gradient.narrow(0, 0, 4), sum()), TorchExtError::Shape { .. }));
    assert!(matches!(refused(&gradient, sum().to_kind(Kind::BFloat16)), TorchExtError::Kind { .. }));
    assert!(matches!(refused(&gradient, sum().narrow(0, 0, 4)), TorchExtError::Shape { .. }));
    let transposed = sum().t_copy().contiguous().t_();
    assert!(matches!(refused(&gradient, transposed), TorchExtError::NotContiguous { .. }));
    let untouched = sum();
    let constant = with(&output.detach(), &gradient, untouched.shallow_clone()).unwrap_err();
    assert!(matches!(constant, TorchExtError::Torch { .. }), "{constant}");
    assert!(untouched.equal(&sum()));
    assert!(with(&output, &gradient, sum()).is_ok(), "the graph is kept after an error");
    let again = with(&output, &gradient, sum()).unwrap_err();
    assert!(matches!(again, TorchExtError::Torch { .. }), "{again}");
}
