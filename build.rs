//! Links the program at fixed addresses.
//!
//! A cell runs this program some eighty times. Without a load address to relocate to, starting it costs a third less and the tables of
//! pointers in it stay shared pages of the file rather than a megabyte of each process's own.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
