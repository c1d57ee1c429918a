#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| meshgate_proxy::fuzzing::http1_head(data));
