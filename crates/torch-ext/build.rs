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
            [
                "attention",
                "blocks",
                "distributed",
                "fused",
                "gloo",
                "gradients",
                "narrow",
                "shim",
                "side_by_side",
                "tiles",
                "varlen",
                "weights",
            ]
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
    if std::env::var_os("CARGO_FEATURE_SANITIZE").is_some() {
        // Of what the shim does with memory every access is checked; libtorch is as it came.
        // Little optimised, since checks are what takes time, in the compiler too.
        for flag in ["-O1", "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-omit-frame-pointer"] {
            build.flag(flag);
        }
        // By name, since rustc tells the compiler that links to bring no libraries of its own.
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
            build.include("cpp/cuda_declarations");
            build.define("TORCH_EXT_NCCL_MISSING", Some(format!("\"{missing}\"").as_str()));
        }
        for folder in folders {
            build.include(folder);
        }
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    build.compile("torch_ext_shim");
}

/// What c10d's process group over NCCL includes, directly or not, and the wheel that brings it.
const CUDA_HEADERS: [(&str, &str); 7] = [
    ("nccl.h", "nvidia-nccl-cu13"),
    ("cuda_runtime.h", "nvidia-cuda-runtime"),
    ("crt/host_defines.h", "nvidia-cuda-crt"),
    ("nv/target", "nvidia-cuda-cccl"),
    ("cublas_v2.h", "nvidia-cublas"),
    ("cusparse.h", "nvidia-cusparse"),
    ("cusolverDn.h", "nvidia-cusolver"),
];

/// Where NCCL's and CUDA's headers lie: where the system has them, or where pip puts NVIDIA's wheels, beside torch.
struct CudaHeaders {
    folders: Vec<PathBuf>,
    /// Those that lie nowhere, as text: empty where all are there.
    missing: String,
}

impl CudaHeaders {
    fn find(include: &Path) -> Self {
        let packages = include.ancestors().nth(2).unwrap_or(include).join("nvidia");
        println!("cargo:rerun-if-env-changed=CUDA_HOME");
        if packages.exists() {
            // A folder that is not there would have this script run each time.
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
        // Everything else can be declared.
        assert!(
            !headers.contains(&"cuda_runtime.h"),
            "the feature `nccl` needs the headers {}: install the wheels {} beside torch ({}), or set CUDA_HOME",
            headers.join(", "),
            wheels.join(", "),
            packages.display()
        );
        // The system's own folder is searched anyway, and must not come before the compiler's.
        folders.retain(|folder| folder.exists() && folder != Path::new("/usr/include"));
        let missing = headers.iter().zip(&wheels).map(|(header, wheel)| format!("{header} ({wheel})"));
        Self { folders, missing: missing.collect::<Vec<_>>().join(", ") }
    }
}
