#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ioth_tests::fuzz::claims(data));
