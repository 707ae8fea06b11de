//! The feature `nccl`, compiled and linked. It takes no GPU, and nothing of it is run.

use std::path::Path;

use anyhow::Result;

use crate::workspace::Workspace;

/// Links the tests of process groups and of trainers with the feature; where this libtorch is none for CUDA, says so.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    if let Some(lacks) = lacks(&workspace.libtorch()) {
        println!("skipped: this libtorch {lacks}");
        return Ok(());
    }
    workspace.cargo(&[
        "test",
        "--no-run",
        // Of the workspace, so that what has nothing to do with the feature is what the earlier stages built.
        "--workspace",
        "--features",
        "torch-ext/nccl,trainer/nccl",
        "--test",
        "distributed",
    ])
}

/// What `libtorch` lacks that the feature is linked with, or compiled against.
fn lacks(libtorch: &Path) -> Option<&'static str> {
    let runtime = libtorch.parent()?.join("nvidia/cu13/include/cuda_runtime.h");
    let cuda = std::env::var_os("CUDA_HOME").is_some();
    match (libtorch.join("lib/libtorch_cuda.so").is_file(), runtime.is_file() || cuda) {
        (false, _) => Some("has no lib/libtorch_cuda.so: it is one for the CPU only"),
        (true, false) => Some(
            "has no headers of the CUDA runtime beside it: install the wheel nvidia-cuda-runtime, or set CUDA_HOME",
        ),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_libtorch_lacks_is_said() {
        let site = std::env::temp_dir().join(format!("xtask-nccl-{}", std::process::id()));
        let libtorch = site.join("torch");
        fs::create_dir_all(libtorch.join("lib")).unwrap();
        let cpu = lacks(&libtorch);
        fs::write(libtorch.join("lib/libtorch_cuda.so"), "").unwrap();
        fs::create_dir_all(site.join("nvidia/cu13/include")).unwrap();
        fs::write(site.join("nvidia/cu13/include/cuda_runtime.h"), "").unwrap();
        let whole = lacks(&libtorch);
        fs::remove_dir_all(&site).unwrap();
        assert!(cpu.is_some_and(|words| words.contains("libtorch_cuda.so")), "{cpu:?}");
        assert_eq!(whole, None);
    }
}
