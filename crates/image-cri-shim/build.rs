//! Keeps static builds from loading modules of the node they run on; see `static/no_modules.c`.

fn main() {
    let source = "static/no_modules.c";
    println!("cargo::rerun-if-changed={source}");
    let is = |name: &str, value: &str| {
        std::env::var(name).is_ok_and(|all| all.split(',').any(|one| one == value))
    };
    if !is("CARGO_CFG_TARGET_FEATURE", "crt-static") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    // As an object: out of a library the linker would take glibc's own.
    for object in cc::Build::new().file(source).compile_intermediates() {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
}
