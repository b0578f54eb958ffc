"""What the gateway counts, logs, and tells collectors and the ledger. Nothing here decides how a question is answered.

`metrics` and `logs` are used all over the gateway; `collector` and `recording` are told of each question at its end.
"""
