//! Parallel parts against sequential ones.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::{Device, Kind, Tensor};
use torch_ext::parallel_map;

/// `n` matrices, and a shared weight.
fn operands(n: i64) -> (Vec<Tensor>, Tensor) {
    let matrix = |rows| {
        let at = Tensor::arange(rows * 48, (Kind::Double, Device::Cpu));
        (at * 12.9898).sin().view([rows, 48]).to_kind(Kind::Float)
    };
    ((1..=n).map(|rows| matrix(16 * rows)).collect(), matrix(48).set_requires_grad(true))
}

fn gradient(x: &Tensor, weight: &Tensor) -> Tensor {
    let root = x.matmul(weight).tanh().sum(Kind::Float);
    Tensor::run_backward(&[root], &[weight], false, false).remove(0)
}

#[test]
fn gradients_of_shared_weights_match_sequential_ones() {
    let (parts, weight) = operands(9);
    let expected: Vec<Tensor> = parts.iter().map(|x| gradient(x, &weight)).collect();
    for _ in 0..50 {
        // A tensor is not `Sync`, so that each part has handles of its own.
        let given = parts.iter().map(|x| (x.shallow_clone(), weight.shallow_clone())).collect();
        let found = parallel_map(given, |(x, weight)| gradient(&x, &weight)).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs().max().double_value(&[]) < 1e-4);
        }
    }
}

#[test]
fn parts_run_on_different_threads_and_results_are_in_order() {
    let before = tch::get_num_threads();
    tch::set_num_threads(2);
    let met = AtomicUsize::new(0);
    let found = parallel_map(vec!["a", "b"], |part| {
        met.fetch_add(1, Ordering::SeqCst);
        // Each part waits for the other, which deadlocks unless they run in parallel.
        while met.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        (part, std::thread::current().id())
    })
    .unwrap();
    tch::set_num_threads(before);
    assert_eq!([found[0].0, found[1].0], ["a", "b"]);
    assert_ne!(found[0].1, found[1].1);
}

#[test]
fn one_thread_runs_all_parts() {
    let before = tch::get_num_threads();
    tch::set_num_threads(1);
    let found = parallel_map((0..5).collect(), |part| part * 2);
    tch::set_num_threads(before);
    assert_eq!(found.unwrap(), [0, 2, 4, 6, 8]);
    assert!(parallel_map(Vec::<i32>::new(), |part| part).unwrap().is_empty());
}

#[test]
fn parts_have_the_callers_gradient_mode() {
    let (parts, weight) = operands(4);
    let has_graph = |(x, weight): (Tensor, Tensor)| x.matmul(&weight).requires_grad();
    let given = || parts.iter().map(|x| (x.shallow_clone(), weight.shallow_clone())).collect();
    assert_eq!(parallel_map(given(), has_graph).unwrap(), [true; 4]);
    let without = tch::no_grad(|| parallel_map(given(), has_graph).unwrap());
    assert_eq!(without, [false; 4]);
}

#[test]
fn a_panic_propagates_after_all_parts_have_ended() {
    let ended = AtomicUsize::new(0);
    let panic = catch_unwind(|| {
        parallel_map(vec![0, 1, 2, 3], |part| {
            assert!(part != 1, "no part 1");
            ended.fetch_add(1, Ordering::SeqCst);
        })
    });
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "no part 1");
    assert_eq!(ended.load(Ordering::SeqCst), 3);
}
