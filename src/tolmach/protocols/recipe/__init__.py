"""Chat APIs that are described by data: recipes, and `json_text`, which is one request and one answer.

`protocol.Recipe` runs what `tables` describe; `pointer` and other parts that more families need stand in `protocols`.
"""
