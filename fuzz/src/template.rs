//! libFuzzer with the target `template`.

#![no_main]

#[path = "../../tests/fuzz_corpus/targets.rs"]
#[allow(dead_code, reason = "each program has one of the targets")]
mod targets;

use targets::template::Target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    thread_local!(static TARGET: Target = Target::new());
    TARGET.with(|target| target.run(data));
});
