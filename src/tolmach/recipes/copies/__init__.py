"""Requests as people copy them out of a browser: for bash, Windows, PowerShell, a console, Node. Pure.

`reading.read_copies` gives the requests of any of these forms. No file is read that a copy names.
"""
