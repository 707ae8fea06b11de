//! Ranks as threads and as processes: collectives against closed forms, and failures to connect.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use torch_ext::TorchExtError;
use torch_ext::distributed::{ProcessGroup, Rank, ReduceOp, Store};

const HOST: &str = "127.0.0.1";
/// A timeout that no successful call reaches, on a busy machine either.
const LONG: Duration = Duration::from_secs(60);
/// A timeout that tests let expire.
const SHORT: Duration = Duration::from_millis(1500);

/// Runs `body` on this many ranks, threads of this process, and returns their results.
fn on_ranks<T: Send>(world_size: u16, timeout: Duration, body: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let server = Store::serve(HOST, 0, LONG).unwrap();
    let (port, body) = (server.port(), &body);
    thread::scope(|scope| {
        let start = |index: u16| {
            scope.spawn(move || {
                let store = Store::connect(HOST, port, LONG).unwrap();
                let rank = Rank::new(index, world_size).unwrap();
                body(ProcessGroup::gloo(&store, "test", rank, timeout).unwrap())
            })
        };
        let ranks: Vec<_> = (0..world_size).map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(&tensor.to_kind(Kind::Double).view(-1)).unwrap()
}

#[test]
fn reductions_are_over_all_ranks() {
    for world_size in 1..=4u16 {
        on_ranks(world_size, LONG, |group| {
            let (r, n) = (group.rank().index() as f64, f64::from(world_size));
            let reduce = |operation| {
                let mut tensor = Tensor::from_slice(&[r + 1.0, -r]);
                group.all_reduce(&mut tensor, operation).unwrap();
                floats(&tensor)
            };
            let factorial = (1..=world_size).map(f64::from).product::<f64>();
            assert_eq!(reduce(ReduceOp::Sum), [n * (n + 1.0) / 2.0, -n * (n - 1.0) / 2.0]);
            assert_eq!(reduce(ReduceOp::Product)[0], factorial);
            assert_eq!(reduce(ReduceOp::Min), [1.0, 1.0 - n]);
            assert_eq!(reduce(ReduceOp::Max), [n, 0.0]);
        });
    }
}

#[test]
fn every_supported_kind_is_reduced() {
    on_ranks(2, LONG, |group| {
        let kinds = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16];
        let whole = [Kind::Int8, Kind::Uint8, Kind::Int, Kind::Int64];
        for kind in kinds.into_iter().chain(whole) {
            let mut tensor = Tensor::full([3, 2], group.rank().index() as i64 + 1, (kind, Device::Cpu));
            group.all_reduce(&mut tensor, ReduceOp::Sum).unwrap();
            assert_eq!((tensor.kind(), floats(&tensor)), (kind, vec![3.0; 6]));
            let (mut part, mut whole) =
                (tensor.narrow(0, 0, 1).zeros_like(), tensor.narrow(0, 0, 2).zeros_like());
            group.reduce_scatter(&mut part, &tensor.narrow(0, 0, 2), ReduceOp::Sum).unwrap();
            assert_eq!((part.kind(), floats(&part)), (kind, vec![6.0; 2]));
            group.all_gather(&mut whole, &part).unwrap();
            assert_eq!((whole.kind(), floats(&whole)), (kind, vec![6.0; 4]));
        }
    });
}

#[test]
fn parts_are_scattered_and_gathered_in_rank_order() {
    for world_size in 1..=4u16 {
        on_ranks(world_size, LONG, |group| {
            let (r, n) = (group.rank().index() as f64, f64::from(world_size));
            let places = Tensor::arange(2 * i64::from(world_size), (Kind::Float, Device::Cpu));
            // Rank r brings (r + 1) · place; the sum over ranks is place · n (n + 1) / 2.
            let mut part = Tensor::zeros([2], (Kind::Float, Device::Cpu));
            group.reduce_scatter(&mut part, &(&places * (r + 1.0)), ReduceOp::Sum).unwrap();
            let factor = n * (n + 1.0) / 2.0;
            assert_eq!(floats(&part), [2.0 * r * factor, (2.0 * r + 1.0) * factor]);
            let mut whole = places.zeros_like();
            group.all_gather(&mut whole, &part).unwrap();
            assert_eq!(floats(&whole), floats(&(&places * factor)));
            // Rank r has the value r + 1, so that the values are 1 to n.
            let number = places.full_like(r + 1.0);
            let product = (1..=world_size).map(f64::from).product();
            let cases = [(ReduceOp::Product, product), (ReduceOp::Min, 1.0), (ReduceOp::Max, n)];
            for (operation, expected) in cases {
                group.reduce_scatter(&mut part, &number, operation).unwrap();
                assert_eq!(floats(&part), [expected; 2], "{operation:?}");
            }
        });
    }
}

#[test]
fn many_collectives_may_be_pending() {
    const COUNT: usize = 200;
    on_ranks(3, LONG, |group| {
        let rank = group.rank().index() as i64;
        let whole = |k: usize| Tensor::full([300], k as i64 + rank, (Kind::Float, Device::Cpu));
        let wholes: Vec<Tensor> = (0..COUNT).map(whole).collect();
        let mut parts: Vec<Tensor> =
            (0..COUNT).map(|_| Tensor::zeros([100], (Kind::Float, Device::Cpu))).collect();
        let scattered = group.scope(|scope| {
            let mut under_way = Vec::new();
            for (k, (part, whole)) in parts.iter_mut().zip(&wholes).enumerate() {
                let work = scope.reduce_scatter(part, whole, ReduceOp::Sum)?;
                // Some are complete when the next ones start; some are waited for twice.
                match k % 50 {
                    10 => thread::sleep(Duration::from_millis(5)),
                    20 => work.wait()?,
                    _ => under_way.push(work),
                }
            }
            Ok::<_, TorchExtError>(())
        });
        scattered.unwrap().unwrap();
        for (k, part) in parts.iter().enumerate() {
            assert_eq!(floats(part), [3.0 * k as f64 + 3.0; 100]);
        }
        for (k, whole) in wholes.iter().enumerate() {
            assert_eq!(floats(whole), [k as f64 + rank as f64; 300], "what is summed up is only read");
        }
    });
}

#[test]
fn broadcasts_come_from_their_root_and_barriers_block() {
    let began = Instant::now();
    on_ranks(3, LONG, |group| {
        for root in 0..3 {
            let mut tensor = Tensor::from_slice(&[group.rank().index() as i64; 5]);
            group.broadcast(&mut tensor, root).unwrap();
            assert_eq!(floats(&tensor), [root as f64; 5]);
        }
        let pause = Duration::from_millis(300);
        if group.rank().index() == 2 {
            thread::sleep(pause);
        }
        group.barrier().unwrap();
        assert!(began.elapsed() >= pause);
    });
}

#[test]
fn work_ends_with_its_scope() {
    on_ranks(2, LONG, |group| {
        let rank = group.rank().index() as f64;
        let mut tensors: Vec<Tensor> =
            (0..100).map(|k| Tensor::full([1000], f64::from(k) + rank, (Kind::Float, Device::Cpu))).collect();
        let mut part = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let (places, mut gathered) =
            (Tensor::from_slice(&[0f32, 1.0, 2.0, 3.0]), Tensor::from_slice(&[0f32; 8]));
        let mut sent = Tensor::from(rank);
        group
            .scope(|scope| {
                for (k, tensor) in tensors.iter_mut().enumerate() {
                    let work = scope.all_reduce(tensor, ReduceOp::Sum)?;
                    match k % 3 {
                        0 => work.wait()?,
                        1 => std::mem::forget(work),
                        _ => drop(work),
                    }
                }
                scope.reduce_scatter(&mut part, &places, ReduceOp::Sum)?;
                scope.all_gather(&mut gathered, &places)?;
                scope.broadcast(&mut sent, 1)?.wait()
            })
            .unwrap()
            .unwrap();
        for (k, tensor) in tensors.iter().enumerate() {
            assert_eq!(floats(tensor), vec![2.0 * k as f64 + 1.0; 1000]);
        }
        assert_eq!(floats(&part), [4.0 * rank, 4.0 * rank + 2.0]);
        assert_eq!(floats(&gathered), [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(floats(&sent), [1.0]);
    });
}

#[test]
fn a_scope_waits_for_its_work_after_a_panic() {
    on_ranks(2, LONG, |group| {
        let mut tensor = Tensor::from_slice(&[1f32; 4]);
        let unwinds = std::panic::AssertUnwindSafe(|| {
            group.scope(|scope| {
                let _work = scope.all_reduce(&mut tensor, ReduceOp::Sum).unwrap();
                // Without the hook: no message on a terminal that shows a test which passes.
                std::panic::resume_unwind(Box::new("the body panics"));
            })
        });
        assert!(std::panic::catch_unwind(unwinds).is_err());
        assert_eq!(floats(&tensor), [2.0; 4]);
    });
}

#[test]
fn unsupported_tensors_are_named_and_the_group_stays_usable() {
    on_ranks(2, LONG, |group| {
        let zeros = |size: i64, kind| Tensor::zeros([size], (kind, Device::Cpu));
        let reduce = |mut tensor: Tensor| group.all_reduce(&mut tensor, ReduceOp::Sum).unwrap_err();
        let error = reduce(zeros(2, Kind::ComplexFloat));
        assert!(matches!(error, TorchExtError::KindNotSent { tensor: "the tensor", .. }), "{error}");
        let error = reduce(zeros(8, Kind::Float).view([4, 2]).select(1, 0));
        assert!(matches!(error, TorchExtError::NotContiguous { tensor: "the tensor" }), "{error}");
        let error = reduce(zeros(0, Kind::Float));
        assert!(matches!(error, TorchExtError::Empty { tensor: "the tensor" }), "{error}");

        let scatter = |mut output: Tensor, input: Tensor| {
            group.reduce_scatter(&mut output, &input, ReduceOp::Sum).unwrap_err()
        };
        let error = scatter(zeros(2, Kind::Float), zeros(3, Kind::Float));
        assert!(matches!(error, TorchExtError::PartSize { whole: 3, part: 2, world_size: 2 }), "{error}");
        let error = scatter(zeros(2, Kind::Double), zeros(4, Kind::Float));
        assert!(matches!(error, TorchExtError::Kind { tensor: "the output", .. }), "{error}");
        let whole = zeros(4, Kind::Float);
        let error = group.all_gather(&mut whole.shallow_clone(), &whole.narrow(0, 2, 2)).unwrap_err();
        assert!(matches!(error, TorchExtError::Overlap { .. }), "{error}");
        let error = group.broadcast(&mut zeros(1, Kind::Float), 2).unwrap_err();
        assert!(matches!(error, TorchExtError::NoSuchRank { rank: 2, world_size: 2 }), "{error}");
        group.barrier().unwrap();
    });
}

/// Asserts that one rank detects a disagreement and that both return its text.
fn disagree(body: impl Fn(&ProcessGroup) -> Result<(), TorchExtError> + Sync, words: &[&str]) {
    let began = Instant::now();
    let errors = on_ranks(2, LONG, |group| {
        group.barrier().unwrap();
        let error = body(&group).unwrap_err();
        let later = group.barrier().unwrap_err();
        assert!(matches!(later, TorchExtError::Unusable { .. }), "{later}");
        error
    });
    assert!(began.elapsed() < LONG, "the ranks waited for the timeout");
    assert!(errors.iter().any(|error| matches!(error, TorchExtError::Disagreement { .. })), "{errors:?}");
    for error in &errors {
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is missing in: {error}");
        }
    }
}

#[test]
fn different_calls_are_reported() {
    disagree(
        |group| {
            let size = 4 + group.rank().index() as i64;
            group.all_reduce(&mut Tensor::zeros([size], (Kind::Float, Device::Cpu)), ReduceOp::Sum)
        },
        &["4 elements of Float", "5 elements of Float"],
    );
    disagree(
        |group| {
            let kind = [Kind::Float, Kind::Int][group.rank().index()];
            group.all_reduce(&mut Tensor::zeros([4], (kind, Device::Cpu)), ReduceOp::Sum)
        },
        &["elements of Float", "elements of Int"],
    );
    disagree(
        |group| {
            if group.rank().index() == 0 {
                group.barrier()
            } else {
                group.broadcast(&mut Tensor::zeros([4], (Kind::Float, Device::Cpu)), 0)
            }
        },
        &["1: barrier", "1: broadcast from rank 0"],
    );
}

#[test]
fn a_missing_call_is_a_timeout() {
    let errors = on_ranks(2, SHORT, |group| {
        let began = Instant::now();
        if group.rank().index() == 1 {
            thread::sleep(SHORT * 3);
            return None;
        }
        let error = group.barrier().unwrap_err();
        assert!(began.elapsed() >= SHORT && began.elapsed() < SHORT * 3, "{:?}", began.elapsed());
        Some(error)
    });
    assert!(matches!(errors[0], Some(TorchExtError::TimedOut { .. })), "{errors:?}");
}

#[test]
fn a_rank_that_leaves_is_a_lost_connection() {
    let errors = on_ranks(2, LONG, |group| {
        group.barrier().unwrap();
        let began = Instant::now();
        if group.rank().index() == 1 {
            return None;
        }
        let error = group.all_reduce(&mut Tensor::from(1f32), ReduceOp::Sum).unwrap_err();
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
        Some(error)
    });
    assert!(matches!(errors[0], Some(TorchExtError::ConnectionLost { .. })), "{errors:?}");
}

#[test]
fn a_failure_is_reported_to_other_ranks() {
    let errors = on_ranks(2, LONG, |group| {
        group.barrier().unwrap();
        if group.rank().index() == 1 {
            group.give_up("the disk is full");
            return None;
        }
        Some(group.barrier().unwrap_err())
    });
    let Some(TorchExtError::OtherRank { reason }) = &errors[0] else { panic!("{errors:?}") };
    assert!(reason.contains("rank 1") && reason.contains("the disk is full"), "{reason}");
}

#[test]
fn an_abort_ends_the_calls_of_all_ranks() {
    let errors = on_ranks(2, SHORT * 2, |group| {
        group.barrier().unwrap();
        let began = Instant::now();
        if group.rank().index() == 1 {
            let handle = group.abort_handle();
            thread::spawn(move || handle.abort("somebody pressed a key")).join().unwrap();
            return (group.barrier().unwrap_err(), began.elapsed());
        }
        (group.barrier().unwrap_err(), began.elapsed())
    });
    let (there, here) = (&errors[0], &errors[1]);
    assert!(matches!(there.0, TorchExtError::ConnectionLost { .. }), "{errors:?}");
    assert!(there.1 < SHORT, "the other rank returns at once");
    let TorchExtError::Unusable { reason } = &here.0 else { panic!("{errors:?}") };
    assert_eq!(reason, "somebody pressed a key");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind((HOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Store::serve(HOST, port, SHORT).unwrap_err();
    assert!(matches!(error, TorchExtError::PortTaken { port: p, .. } if p == port), "{error}");
    drop(taken);
    // And is free again when its store has gone, unless another test was given it in between.
    let serves_twice = |_| {
        let port = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap().port();
        (0..2).all(|_| Store::serve(HOST, port, SHORT).is_ok())
    };
    assert!((0..8).any(serves_twice), "no port was free again");
}

#[cfg(target_os = "linux")]
#[test]
fn a_store_listens_on_the_interface_of_its_host_only() {
    // All of 127.0.0.0/8 is this machine.
    let store = Store::serve("127.0.0.3", 0, SHORT).unwrap();
    assert!(Store::connect("127.0.0.3", store.port(), SHORT).is_ok());
    let elsewhere = std::net::TcpStream::connect(("127.0.0.1", store.port()));
    assert!(elsewhere.is_err(), "another interface reaches the store");
    // An address of documentation, which no machine has.
    let error = Store::serve("203.0.113.1", 0, SHORT).unwrap_err();
    assert!(matches!(error, TorchExtError::Listen { .. }), "{error}");
}

#[test]
fn a_stranger_that_sends_garbage_ends_no_store() {
    use std::io::Write as _;
    let store = Store::serve(HOST, 0, SHORT).unwrap();
    let connect = || std::net::TcpStream::connect((HOST, store.port())).unwrap();
    let valid: Vec<u8> = [&[0][..], &0x3C85_F7CE_u32.to_le_bytes()].concat();
    let mut strangers = Vec::new();
    for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[1; 64], &[7], &[]] {
        for greeting in [&[][..], &valid] {
            let mut stranger = connect();
            let _ = stranger.write_all(greeting).and_then(|()| stranger.write_all(request));
            strangers.push(stranger);
        }
    }
    store.set("key", b"value").unwrap();
    drop(strangers);
    assert_eq!(Store::connect(HOST, store.port(), SHORT).unwrap().get("key", SHORT).unwrap(), b"value");
}

#[test]
fn a_missing_store_is_named() {
    let free = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let error = Store::connect(HOST, free, SHORT).unwrap_err();
    assert!(matches!(error, TorchExtError::NoStore { .. }), "{error}");
    assert!(began.elapsed() < SHORT * 2, "{:?}", began.elapsed());
}

/// Joins a group as two ranks with these indices and world sizes.
fn join(places: [(u16, u16); 2]) -> [Result<(), TorchExtError>; 2] {
    let server = Store::serve(HOST, 0, LONG).unwrap();
    let port = server.port();
    let start = |(index, world_size): (u16, u16)| {
        thread::spawn(move || {
            let store = Store::connect(HOST, port, LONG)?;
            ProcessGroup::gloo(&store, "test", Rank::new(index, world_size)?, SHORT).map(drop)
        })
    };
    places.map(start).map(|rank| rank.join().unwrap())
}

#[test]
fn wrong_configurations_fail_at_the_start_on_all_ranks() {
    let errors = join([(0, 2), (1, 3)]).map(Result::unwrap_err);
    assert!(errors.iter().any(|e| matches!(e, TorchExtError::WorldSizeMismatch { .. })), "{errors:?}");
    assert!(errors.iter().all(|e| e.to_string().contains("WORLD_SIZE")), "{errors:?}");

    let errors = join([(1, 2), (1, 2)]).map(Result::unwrap_err);
    assert!(errors.iter().any(|e| matches!(e, TorchExtError::RankTwice { rank: 1 })), "{errors:?}");
    assert!(errors.iter().all(|e| e.to_string().contains("two processes have rank 1")), "{errors:?}");

    let errors = join([(0, 4), (2, 4)]).map(Result::unwrap_err);
    let missing = |e: &TorchExtError| e.to_string().contains("[1, 3] did not arrive");
    assert!(errors.iter().all(missing), "{errors:?}");
    assert!(Rank::new(2, 2).is_err());
}

#[test]
fn a_store_has_values_of_any_length_and_counters() {
    let store = Store::serve(HOST, 0, SHORT).unwrap();
    let long: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    store.set("long", &long).unwrap();
    assert_eq!(store.get("long", SHORT).unwrap(), long);
    assert_eq!((store.add("n", 2).unwrap(), store.add("n", 3).unwrap()), (2, 5));
    assert_eq!(store.compare_set("once", b"", b"first").unwrap(), b"first");
    assert_eq!(store.compare_set("once", b"", b"second").unwrap(), b"first");
    assert_eq!(store.compare_set("once", b"first", b"second").unwrap(), b"second");
    assert!(!store.named("other").contains("n").unwrap());
    let error = store.get("nothing", Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, TorchExtError::TimedOut { .. }), "{error}");
}

/// The environment variable of the processes of the test below: rank and port of the store.
const CHILD: &str = "TORCH_EXT_TEST_CHILD";

#[test]
fn a_killed_process_is_detected_at_once() {
    if let Ok(place) = std::env::var(CHILD) {
        return child(&place);
    }
    let store = Store::serve(HOST, 0, LONG).unwrap();
    let start = |index: u16| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_is_detected_at_once", "--nocapture"])
            .env(CHILD, format!("{index} {}", store.port()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut others = [start(1), start(2)];
    let group = ProcessGroup::gloo(&store, "test", Rank::new(0, 3).unwrap(), LONG).unwrap();
    let mut sum = Tensor::from_slice(&[1f32, 2.0]);
    group.all_reduce(&mut sum, ReduceOp::Sum).unwrap();
    assert_eq!(floats(&sum), [3.0, 6.0]);
    others[0].kill().unwrap();
    let began = Instant::now();
    let error = group.barrier().unwrap_err();
    assert!(
        matches!(error, TorchExtError::ConnectionLost { .. } | TorchExtError::OtherRank { .. }),
        "{error}"
    );
    drop(group);
    // The third rank detects it, too, and its test fails.
    assert!(!others[1].wait().unwrap().success());
    others[0].wait().unwrap();
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
}

fn child(place: &str) {
    let (index, port) = place.split_once(' ').unwrap();
    let store = Store::connect(HOST, port.parse().unwrap(), LONG).unwrap();
    let rank = Rank::new(index.parse().unwrap(), 3).unwrap();
    let group = ProcessGroup::gloo(&store, "test", rank, LONG).unwrap();
    group.all_reduce(&mut Tensor::from_slice(&[1f32, 2.0]), ReduceOp::Sum).unwrap();
    if rank.index() == 1 {
        thread::sleep(LONG);
    }
    group.barrier().unwrap();
}
