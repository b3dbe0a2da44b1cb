//! With the feature `native`: compiles the shim and links the libraries that `pkg-config libdpdk` names.

use std::process::Command;

/// Oldest release whose structures the shim's assertions hold for.
const OLDEST: &str = "22.11";
/// What is called directly; drivers are loaded by EAL itself.
const LIBRARIES: [&str; 5] = ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal", "rte_kvargs"];

fn pkg_config(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
        .args(arguments)
        .arg("libdpdk")
        .output()
        .map_err(|error| format!("pkg-config cannot be started: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim.c");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    if std::env::var_os("CARGO_FEATURE_NATIVE").is_none() {
        return;
    }
    if let Err(why) = native() {
        eprintln!(
            "dpdk-sys: DPDK {OLDEST} or later is needed with its headers (on Debian: apt-get install libdpdk-dev \
             pkg-config gcc): {why}"
        );
        std::process::exit(1);
    }
}

fn native() -> Result<(), String> {
    pkg_config(&["--print-errors", &format!("--atleast-version={OLDEST}")])?;
    let mut shim = cc::Build::new();
    shim.file("shim.c").std("gnu11").warnings(true).extra_warnings(true);
    // Includes, the processor that DPDK was built for, and the header that says how it was configured.
    for flag in pkg_config(&["--cflags"])?.split_whitespace() {
        shim.flag(flag);
    }
    shim.opt_level(3).try_compile("onvm_dpdk_shim").map_err(|error| error.to_string())?;
    println!("cargo::rustc-link-search=native={}", pkg_config(&["--variable=libdir"])?);
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}
