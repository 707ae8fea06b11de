//! Three ranks sum their shards of a batch: `cargo run -p distributed --example sum`.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use distributed::{Launcher, Placement, ProcessGroup};
use tch::Device;

const MARKER: &str = "--launched";

#[expect(clippy::print_stdout, reason = "the result of the example")]
fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|argument| argument == MARKER) {
        let launcher = Launcher {
            processes_per_node: 3,
            nodes: 1,
            node_rank: 0,
            marker: MARKER,
            shares_cores: true,
            resume_hint: "start the example again",
            group: None,
            print: distributed::print_line,
        };
        return Ok(launcher.run(&AtomicBool::new(false))?);
    }
    let placement = Placement::from_environment(|name| std::env::var(name).ok())?;
    let placement = placement.ok_or("the launcher sets RANK and WORLD_SIZE")?;
    let group = ProcessGroup::join(&placement, Device::Cpu, Duration::from_secs(30))?;
    let tokens = [120, 340, 560, 780, 50];
    let shard = group.shard_batch(&tokens);
    let mut sum = [shard.iter().map(|&item| tokens[item] as f64).sum()];
    group.all_reduce_sum(&mut sum)?;
    if group.is_main() {
        println!("{} ranks, {} tokens", group.world_size(), sum[0]);
    }
    Ok(())
}
