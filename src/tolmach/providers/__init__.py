"""Providers: a site as a class, with the three calls that every one of them has, found by name or model.

`base` has the classes, `registry` the names, `stream_session` the transport under the names that older code uses,
`sites` the declarations. The public names are those of `tolmach` itself.
"""
