"""Chat plugins of WordPress: AI Engine, AI Power before and (AIPKit) after its second version.

`common` is what they share: nonces, pages, refusals. Discovery reads the markup of widgets by the functions beside
each protocol.
"""
