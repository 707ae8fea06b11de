//! Prints `docs/paper-reanalysis.md`: `cargo run -p paper --example reanalysis > docs/paper-reanalysis.md`.

#![expect(clippy::print_stdout, reason = "the page is what this is for")]

fn main() -> Result<(), paper::Error> {
    print!("{}", paper::reanalysis()?);
    Ok(())
}
