"""For those who test against anychat: recordings, the conformance suite and the fuzzer. Loaded by name."""
