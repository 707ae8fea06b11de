//! Compiles the shim against the headers of the libtorch that tch links.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    // torch-sys tells its direct dependents where the libraries lie; the headers lie beside them.
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        // `tch/doc-only`: nothing is linked.
        return;
    };
    let include = Path::new(&lib).parent().expect("libtorch's lib folder has a parent").join("include");
    // libtorch_cuda has a copy of Gloo's context and comes first in torch-sys's list; from there it would have to be loaded.
    println!("cargo:rustc-link-lib=torch_cpu");
    let mut build = cc::Build::new();
    build.opt_level(3).cpp(true);
    if build.get_compiler().is_like_gnu()
        && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
    {
        // libtorch's own threads, from the very library that it brings; another compiler's would be threads beside them. A
        // compiler without them gives a shim that computes in one.
        build.flag("-fopenmp");
        println!("cargo:rustc-link-search=native={}", Path::new(&lib).display());
        println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    }
    build
        .std("c++20")
        .files(
            ["attention", "distributed", "fused", "narrow", "shim", "tiles", "weights"]
                .map(|name| format!("cpp/{name}.cpp")),
        )
        .include("cpp/gloo_abi")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("USE_C10D_GLOO", None)
        .warnings(false)
        // Roots are taken a vector at a time, and nobody asks what kept one from being a number.
        .flag_if_supported("-fno-math-errno")
        // Vectors are passed inside of this library only.
        .flag_if_supported("-Wno-psabi");
    if std::env::var_os("CARGO_FEATURE_NCCL").is_some() {
        build.file("cpp/nccl.cpp").define("USE_C10D_NCCL", None);
        for folder in nccl_headers(&include) {
            build.include(folder);
        }
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    build.compile("torch_ext_shim");
}

/// Folders that hold NCCL's and CUDA's headers: where the system has them, or where pip puts NVIDIA's wheels, beside torch.
fn nccl_headers(include: &Path) -> Vec<PathBuf> {
    let packages = include.ancestors().nth(2).unwrap_or(include).join("nvidia");
    let cuda = std::env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from);
    let candidates = ["nccl/include", "cu13/include", "cu13/include/cccl", "cuda_runtime/include"];
    let mut folders: Vec<PathBuf> = candidates.iter().map(|folder| packages.join(folder)).collect();
    folders.extend([cuda.join("include"), "/usr/include".into()]);
    for header in ["nccl.h", "cuda_runtime.h", "crt/host_defines.h", "nv/target"] {
        assert!(
            folders.iter().any(|folder| folder.join(header).exists()),
            "the feature `nccl` needs the header {header}, which a libtorch for the CPU does not bring: install the wheels \
             nvidia-nccl-cu13, nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cuda-cccl beside torch ({}), or set CUDA_HOME",
            packages.display()
        );
    }
    // The system's own folder is searched anyway, and must not come before the compiler's.
    folders.retain(|folder| folder.exists() && folder != Path::new("/usr/include"));
    folders
}
