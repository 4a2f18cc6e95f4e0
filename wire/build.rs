//! Compiles the protobuf files in pure Rust: a fresh machine has no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["lockstep/v1/session.proto"], ["proto"])?;
    // Sorted maps: equal messages have equal bytes.
    tonic_prost_build::configure()
        .bytes(".lockstep.v1")
        .btree_map(".lockstep.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
