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
    // All of it, and ahead of the C library: a linker that has taken glibc's own before finds two of each.
    cc::Build::new()
        .file(source)
        .link_lib_modifier("+whole-archive")
        .compile("no_modules");
}
