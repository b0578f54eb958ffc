"""The APIs of OpenAI: chat completions and Responses, as OpenAI and compatible servers speak them.

`faults` reads errors of all who imitate them, `watch` answers that are passed on unchanged; Anthropic and ChatGPT
use both.
"""
