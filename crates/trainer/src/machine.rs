//! The machine and the libraries of a run, for its provenance.

use std::fs;
use std::path::Path;

use distributed::ProcessGroup;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// The machine and the libraries of rank 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The operating system and the instruction set.
    pub system: String,
    /// The model of the CPU; `None` if the system does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// The models of the GPUs that the driver lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// The device that computes: `cpu` or `cuda`.
    pub device: String,
    /// The data type of the computation, which is float32 if the device has no bfloat16.
    pub dtype: String,
    /// The number of libtorch's threads.
    pub threads: i32,
    /// The number of processes.
    pub ranks: usize,
    /// The version of libtorch; `None` if it is not that of a Python package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
}

impl Machine {
    /// Describes this machine, on which `group` computes in `kind` on `device`.
    pub(crate) fn here(kind: Kind, device: Device, group: &ProcessGroup) -> Self {
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: cpu(&read("/proc/cpuinfo")),
            gpus: gpus(Path::new("/proc/driver/nvidia/gpus")),
            device: if device == Device::Cpu { "cpu" } else { "cuda" }.to_owned(),
            dtype: if kind == Kind::BFloat16 { "bfloat16" } else { "float32" }.to_owned(),
            threads: tch::get_num_threads(),
            ranks: group.rank().world_size(),
            libtorch: libtorch(&read("/proc/self/maps")),
        }
    }
}

/// Returns the text of a file; empty if there is none.
fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns the value of the first line `name: value`.
fn value_of(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn cpu(info: &str) -> Option<String> {
    value_of(info, "model name")
}

/// Returns the models in the folder of the NVIDIA driver, in the order of their names.
fn gpus(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut models: Vec<String> =
        entries.filter_map(|entry| value_of(&read(entry.path().join("information")), "Model")).collect();
    models.sort();
    models
}

/// Returns the version in the Python package whose libtorch this process has loaded.
fn libtorch(maps: &str) -> Option<String> {
    let loaded = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.ends_with("/libtorch_cpu.so").then_some(path)
    })?;
    let package = Path::new(loaded).parent()?.parent()?;
    version(&read(package.join("version.py")))
}

/// Returns the version that a package's `version.py` assigns.
fn version(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(value.trim_matches(['\'', '"']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_systems_files() {
        let info = "processor\t: 0\nmodel name\t: A CPU @ 2.00GHz\nmodel name\t: B\n";
        assert_eq!(cpu(info).as_deref(), Some("A CPU @ 2.00GHz"));
        assert_eq!(cpu("Processor: 0"), None);
        let folder = tempfile::tempdir().unwrap();
        for (name, model) in [("0001", "H200"), ("0000", "A100")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            let text = format!("Model: \t\t {model}\nIRQ: 1\n");
            fs::write(folder.path().join(name).join("information"), text).unwrap();
        }
        assert_eq!(gpus(folder.path()), ["A100", "H200"]);
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("version.py"), "x = 1\n__version__ = '2.13.0+cpu'\n").unwrap();
        let maps = format!("7f-8f r-xp 0 fe:00 7  {}/lib/libtorch_cpu.so\n", folder.path().display());
        assert_eq!(libtorch(&maps).as_deref(), Some("2.13.0+cpu"));
        assert_eq!(libtorch("7f-8f r-xp 0 fe:00 7  /lib/libc.so"), None);
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::here(Kind::Float, Device::Cpu, &ProcessGroup::single());
        assert_eq!((machine.ranks, machine.device.as_str(), machine.dtype.as_str()), (1, "cpu", "float32"));
        assert!(machine.threads > 0);
    }
}
