"""The catalogue of diagnostics: for each code its title, why it matters, an example and the way out.

One file per letter. `CODES` gathers them; `specc explain CODE` prints one.
"""

from specc.codes import graph, plan, runtime, source, types
from specc.codes.code import Code

CODES: dict[str, Code] = {
    entry.code: entry
    for entries in (source.CODES, types.CODES, graph.CODES, plan.CODES, runtime.CODES)
    for entry in entries
}
