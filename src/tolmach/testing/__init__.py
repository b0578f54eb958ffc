"""For those who test against tolmach: recordings, the conformance suite and the fuzzer. Loaded by name."""
