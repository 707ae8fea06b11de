//! Reads a Hugging Face folder and writes it again, say in another kind.
//!
//! ```text
//! cargo run -p policy-model --example resave -- FROM TO [float32|bfloat16|float16]
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example's output is its purpose")]

use std::path::Path;
use std::process::ExitCode;

use policy_model::Policy;
use tch::{Device, Kind};

fn main() -> Result<ExitCode, policy_model::PolicyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, to, kind) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [from, to] | [from, to, "bfloat16"] => (*from, *to, Kind::BFloat16),
        [from, to, "float16"] => (*from, *to, Kind::Half),
        [from, to, "float32"] => (*from, *to, Kind::Float),
        _ => {
            println!("usage: resave FROM TO [float32|bfloat16|float16]");
            return Ok(ExitCode::from(2));
        }
    };
    let policy = Policy::load(Path::new(from), Kind::Float, Device::Cpu)?;
    policy.save(Path::new(to), kind, Some(Path::new(from)))?;
    println!("{to}: {} parameters in {kind:?}", policy.config().parameter_count());
    Ok(ExitCode::SUCCESS)
}
