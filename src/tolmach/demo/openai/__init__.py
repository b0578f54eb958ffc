"""OpenAI's API, played.

`chat` is the service at `/v1`; `responses` and `embeddings` are its other endpoints, `api` what they share.
"""
