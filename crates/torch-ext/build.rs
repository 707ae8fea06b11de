//! Compiles the shim against the headers of the libtorch that tch links.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 16] = [
    "amx",
    "attention",
    "blocks",
    "checks",
    "decode",
    "distributed",
    "fused",
    "gloo",
    "gradients",
    "guarded",
    "instructions",
    "parallel",
    "quantized",
    "shim",
    "varlen",
    "weights",
];

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    // torch-sys passes the folder of its libraries to direct dependents; the headers are next to it.
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        // `tch/doc-only`: nothing is linked.
        return;
    };
    // Neither does clippy link, for which Cargo builds and runs the build scripts of this workspace once more.
    println!("cargo:rerun-if-env-changed=CLIPPY_ARGS");
    if std::env::var_os("CLIPPY_ARGS").is_some() {
        return;
    }
    let include = Path::new(&lib).parent().expect("libtorch's lib folder has a parent").join("include");
    // libtorch_cuda contains a copy of Gloo's context and precedes libtorch_cpu in torch-sys's list of libraries.
    println!("cargo:rustc-link-lib=torch_cpu");
    let mut build = cc::Build::new();
    build.opt_level(3).cpp(true);
    if build.get_compiler().is_like_gnu()
        && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
    {
        // The OpenMP library that libtorch ships: another one would start a second pool of threads. Without OpenMP the shim
        // computes on one thread.
        build.flag("-fopenmp");
        println!("cargo:rustc-link-search=native={}", Path::new(&lib).display());
        println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    }
    build
        .std("c++20")
        .files(SOURCES.map(|name| format!("cpp/{name}.cpp")))
        .include("cpp/gloo_abi")
        .define("USE_C10D_GLOO", None)
        .warnings(true)
        .extra_warnings(true)
        // Vectorizes square roots.
        .flag_if_supported("-fno-math-errno")
        // Vectors are passed within this library only.
        .flag_if_supported("-Wno-psabi");
    // Headers of others, whose warnings are not ours.
    for folder in [include.clone(), include.join("torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder);
    }
    if std::env::var_os("CARGO_FEATURE_SANITIZE").is_some() {
        // Checks the shim's memory accesses, not libtorch's. Low optimization keeps compile times bearable.
        for flag in ["-O1", "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-omit-frame-pointer"] {
            build.flag(flag);
        }
        // By name, since rustc links with -nodefaultlibs.
        println!("cargo:rustc-link-lib=dylib=asan");
        println!("cargo:rustc-link-lib=dylib=ubsan");
    }
    if std::env::var_os("CARGO_FEATURE_NCCL").is_some() {
        build.file("cpp/nccl.cpp").define("USE_C10D_NCCL", None);
        let CudaHeaders { folders, missing } = CudaHeaders::find(&include);
        if !missing.is_empty() {
            println!(
                "cargo:warning=built without {missing}: it links, and refuses to make process groups over NCCL"
            );
            build.flag("-isystem").flag("cpp/cuda_declarations");
            build.define("TORCH_EXT_NCCL_MISSING", Some(format!("\"{missing}\"").as_str()));
        }
        for folder in folders {
            build.flag("-isystem").flag(folder);
        }
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    build.compile("torch_ext_shim");
}

/// Headers that c10d's process group over NCCL includes, directly or indirectly, and the wheels that contain them.
const CUDA_HEADERS: [(&str, &str); 7] = [
    ("nccl.h", "nvidia-nccl-cu13"),
    ("cuda_runtime.h", "nvidia-cuda-runtime"),
    ("crt/host_defines.h", "nvidia-cuda-crt"),
    ("nv/target", "nvidia-cuda-cccl"),
    ("cublas_v2.h", "nvidia-cublas"),
    ("cusparse.h", "nvidia-cusparse"),
    ("cusolverDn.h", "nvidia-cusolver"),
];

/// Folders of NCCL's and CUDA's headers: of the system, or of NVIDIA's wheels next to torch.
struct CudaHeaders {
    folders: Vec<PathBuf>,
    /// The headers that were not found, as text; empty if none.
    missing: String,
}

impl CudaHeaders {
    fn find(include: &Path) -> Self {
        let packages = include.ancestors().nth(2).unwrap_or(include).join("nvidia");
        println!("cargo:rerun-if-env-changed=CUDA_HOME");
        if packages.exists() {
            // A missing folder would rerun this script each time.
            println!("cargo:rerun-if-changed={}", packages.display());
        }
        let cuda = std::env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from);
        let candidates = ["nccl/include", "cu13/include", "cu13/include/cccl", "cuda_runtime/include"];
        let mut folders: Vec<PathBuf> = candidates.iter().map(|folder| packages.join(folder)).collect();
        folders.extend(["include", "include/cccl"].map(|folder| cuda.join(folder)));
        folders.push("/usr/include".into());
        let lacks = |header: &str| !folders.iter().any(|folder| folder.join(header).exists());
        let (headers, wheels): (Vec<_>, Vec<_>) =
            CUDA_HEADERS.iter().copied().filter(|(header, _)| lacks(header)).unzip();
        // cpp/cuda_declarations replaces any other header.
        assert!(
            !headers.contains(&"cuda_runtime.h"),
            "the feature `nccl` needs the headers {}: install the wheels {} beside torch ({}), or set CUDA_HOME",
            headers.join(", "),
            wheels.join(", "),
            packages.display()
        );
        // The compiler searches the system's folder anyway, and must search its own first.
        folders.retain(|folder| folder.exists() && folder != Path::new("/usr/include"));
        let missing = headers.iter().zip(&wheels).map(|(header, wheel)| format!("{header} ({wheel})"));
        Self { folders, missing: missing.collect::<Vec<_>>().join(", ") }
    }
}
