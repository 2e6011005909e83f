"""Plan in, text out: the last arrow of the compiler.

`bundle(plan, target)` gives every file of a bundle as `{relative path: text}`, `write(files, folder)`
puts them on disk. The text depends on the plan only. What a script has to decide was decided in the
plan; `directives` and `script` turn it into lines, `templates/` only lays them out.
"""

from specc.emit.bundle import TARGETS, bundle, write
from specc.emit.render import EmitError

__all__ = ["TARGETS", "EmitError", "bundle", "write"]
