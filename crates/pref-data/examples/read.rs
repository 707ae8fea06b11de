//! Reads a file of preferences and says how long that took and how much memory.
//!
//! ```text
//! cargo run -p pref-data --example read -- shp shp.parquet 100000
//! ```

use std::num::NonZeroUsize;
use std::time::Instant;

use pref_data::{Format, ReadOptions, Sample, ScoreRatio, read_records_with};
use seeds::Seeds;

#[expect(clippy::print_stdout, reason = "an example's result")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (format, path) = match &arguments[..] {
        [format, path, ..] => (format.as_str(), path),
        _ => return Err("give a format, a file and, if you like, the size of a sample".into()),
    };
    let format = match format {
        "pairs" => Format::Pairs,
        "hh-rlhf" => Format::HhRlhf,
        "gair" => Format::Gair,
        "ultrafeedback" => Format::Ultrafeedback,
        "shp" => Format::Shp(ScoreRatio::PAPER),
        "records" => Format::Records,
        other => return Err(format!("no format is called {other}").into()),
    };
    let size = arguments.get(2).map(|size| size.parse::<NonZeroUsize>()).transpose()?;
    let sample = size.map(|records| Sample { records, seeds: Seeds::new(0) });
    let start = Instant::now();
    let (records, report) = read_records_with(path, &ReadOptions { sample, ..ReadOptions::new(format) })?;
    let seconds = start.elapsed().as_secs_f64();
    let left_out = report.filtered + report.unsampled;
    println!("{} records, {left_out} left out, {seconds:.2} s, peak {}", records.len(), peak_memory());
    Ok(())
}

/// The most memory that this process has held, as Linux counts it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |size| size.trim().to_owned())
}
