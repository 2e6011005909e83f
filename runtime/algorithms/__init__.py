"""One file per program: `step(run)`, its loss and its advantages as pure functions.

The file's name is the program's name in the plan. A program imports `run`, `batch`, `tensors` and
other programs' pure functions, never Megatron. To add one, add a file with a `step(run) -> metrics`.
"""
