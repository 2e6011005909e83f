"""The language: frozen sections, each field with a default, a tag and a sentence about it.

`section` is the base and the tags; `units` reads times and sizes; `reading` turns plain data into a section
and every mistake into a diagnostic. The other files are the sections that algorithms share. What comes
in is what `specc.source` read; what goes out is held by an `Experiment`. Imports nothing to its right.
"""
