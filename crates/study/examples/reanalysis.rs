//! Prints `docs/paper-reanalysis.md`: `cargo run -p study --example reanalysis > docs/paper-reanalysis.md`.

#![expect(clippy::print_stdout, reason = "the page is what this is for")]

fn main() -> Result<(), study::paper::Error> {
    print!("{}", study::paper::reanalysis()?);
    Ok(())
}
