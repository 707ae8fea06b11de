//! Gradients that begin with one given, against those of a product with it, and where they are gathered.

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
fn they_have_the_bits_of_a_products_and_are_added() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        let [x, weight, unused, gradient] = operands(kind);
        let output = || x.matmul(&weight).tanh();
        let expected = {
            let root = (output() * &gradient).sum(Kind::Float);
            Tensor::run_backward(&[root], &[&x, &weight], false, false)
        };
        let leaves = [&unused, &weight];
        let mut sums = sums(&leaves);
        let of_x = gather_gradients(&output(), &gradient, &x, &leaves, &mut sums).unwrap();
        assert!(of_x.unwrap().equal(&expected[0]), "{kind:?}");
        assert!(sums[0].equal(&sums[0].full_like(0.25)), "nothing leads there");
        // Rounded once where the sum is made.
        let sum = (expected[1].to_kind(Kind::Double) + 0.25).to_kind(Kind::Float);
        assert!((&sums[1] - sum).abs().max().double_value(&[]) < 1e-6, "{kind:?}");
        assert!(!x.grad().defined() && !weight.grad().defined(), "nothing gathers at a leaf");
        let of_unused = gather_gradients(&output(), &gradient, &unused, &[], &mut []).unwrap();
        assert!(of_unused.is_none(), "nothing leads there");
    }
}

/// What a graph makes of `x` `[5, 8]`, a matrix and a row.
type Graph = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

#[test]
fn graphs_of_any_form_are_differentiated_alike() {
    let forms: [(&str, Graph); 6] = [
        ("a chain", |x, weight, _| x.matmul(weight).tanh()),
        ("a chain with a row that is every row's", |x, weight, row| (x.matmul(weight) + row).tanh()),
        ("a chain that meets a leaf twice", |x, weight, row| (x.matmul(weight) * row).tanh() + row),
        ("ways that meet again", |x, weight, row| {
            let y = x.matmul(weight) * row;
            &y + y.tanh()
        }),
        ("an input that is met twice", |x, weight, row| (x * x).matmul(weight) + row),
        ("rows out of order, one of them twice", |x, weight, _| {
            x.tanh().index_select(0, &Tensor::from_slice(&[3i64, 0, 3, 4, 1])).matmul(weight)
        }),
    ];
    for (what, graph) in forms {
        let [x, weight, _, gradient] = operands(Kind::Float);
        let row = Tensor::from_slice(&[0.5f32, -1.0, 2.0]).set_requires_grad(true);
        let leaves = [&weight, &row];
        let mut sums = sums(&leaves);
        let of_x = gather_gradients(&graph(&x, &weight, &row), &gradient, &x, &leaves, &mut sums).unwrap();
        let root = (graph(&x, &weight, &row) * &gradient).sum(Kind::Float);
        root.backward();
        assert!((of_x.unwrap() - x.grad()).abs().max().double_value(&[]) < 1e-6, "{what}");
        for (leaf, sum) in leaves.into_iter().zip(&sums) {
            let of_leaf = leaf.grad();
            let expected = if of_leaf.defined() { of_leaf + 0.25 } else { sum.full_like(0.25) };
            assert!((sum - expected).abs().max().double_value(&[]) < 1e-5, "{what}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_adds_nothing() {
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
    let turned = sum().t_copy().contiguous().t_();
    assert!(matches!(refused(&gradient, turned), TorchExtError::NotContiguous { .. }));
    let untouched = sum();
    let asks_for_none = with(&output.detach(), &gradient, untouched.shallow_clone()).unwrap_err();
    assert!(matches!(asks_for_none, TorchExtError::Torch { .. }), "{asks_for_none}");
    assert!(untouched.equal(&sum()));
    assert!(with(&output, &gradient, sum()).is_ok(), "the graph is still there");
    let again = with(&output, &gradient, sum()).unwrap_err();
    assert!(matches!(again, TorchExtError::Torch { .. }), "{again}");
}
