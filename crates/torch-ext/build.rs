//! Compiles the shim against the headers of the libtorch that tch links.

use std::path::Path;

fn main() {
    for file in ["cpp/shim.cpp", "cpp/shim.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    // torch-sys tells its direct dependents where the libraries lie; the headers lie beside them.
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        // `tch/doc-only`: nothing is linked.
        return;
    };
    let include = Path::new(&lib).parent().expect("libtorch's lib folder has a parent").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file("cpp/shim.cpp")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .warnings(false)
        .compile("torch_ext_shim");
}
