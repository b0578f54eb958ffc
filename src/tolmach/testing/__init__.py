"""For those who test against tolmach: recordings, the conformance suite, the fuzzer, the score of discovery.

Loaded by name, `from tolmach.testing import conformance`; nothing of the product imports it but the command `decode`.
"""
