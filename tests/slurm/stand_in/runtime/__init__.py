"""Stands in for the runtime in tests of the scripts: keeps the run folder's protocol without torch."""
