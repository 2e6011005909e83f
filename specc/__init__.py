"""specc: a compiler for alignment experiments.

One typed YAML spec is read, checked, lowered to a graph of stages, planned for the hardware, and
emitted as the scripts that run it. Importing this package imports nothing else, so that any part
of it stays light; `specc.compile` is the whole pipeline on one screen.
"""

__version__ = "0.1.0"
