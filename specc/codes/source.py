"""S: the text of a spec."""

from specc.codes.code import Code

CODES = (
    Code(
        "S001",
        "text that is not UTF-8",
        "A spec is text in UTF-8 without control characters; other bytes would reach scripts and logs.",
        "name: caf\\xe9   # saved as Latin-1",
        "Save the file as UTF-8; remove the character that is named.",
    ),
    Code(
        "S002",
        "text that is not YAML",
        "A quote or bracket is open, a `:` stands where none can, or an indentation is off.",
        "data: {train: rows.jsonl\ntrain: {lr: 1e-5}",
        "Look at the place that is shown; put a value that contains `: ` or begins with `@` in quotes.",
    ),
    Code(
        "S003",
        "key given twice",
        "YAML readers take the last one without a word, so half of what you wrote would count for nothing.",
        "train: {lr: 1e-5, lr: 1e-6}",
        "Keep one of them.",
    ),
    Code(
        "S004",
        "tab as indentation",
        "YAML knows spaces only, since a tab has no agreed width.",
        "train:\n\tlr: 1e-5",
        "Indent with spaces; two per level is usual.",
    ),
    Code(
        "S005",
        "text that is too large",
        "A few lines of aliases can stand for billions of values, so size, depth and expansion are bounded.",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]   # and so on",
        "Put data into a file of its own and name its path; write repeated values out.",
    ),
    Code(
        "S006",
        "text that is not one spec",
        "A spec is one YAML document of keys with values.",
        "algorithm:sft   # no space after the colon: plain text",
        "Write `key: value` lines, one document per file; `specc init NAME` copies a spec to start from.",
    ),
    Code(
        "S007",
        "key that is not text",
        "Keys of a spec are names; a bare number or `true` is a value of another type in YAML.",
        "env: {1: a}",
        'Put the key in quotes: "1".',
    ),
    Code(
        "S008",
        "tag in a spec",
        "YAML tags such as `!!python/object` ask the reader to build something; a spec is plain data.",
        "train: !!map {lr: 1e-5}",
        "Remove the tag.",
    ),
    Code(
        "S009",
        "alias or merge that leads nowhere",
        "`*name` repeats the value marked `&name` above it; `<<: *name` merges such a section's keys.",
        "validation: *rows   # and no `&rows` above",
        "Define the anchor first, or write the value out.",
    ),
    Code(
        "S010",
        "--set that cannot be applied",
        "`--set path=value` puts a value where the path leads, and is then checked like the file.",
        "specc check spec.yaml --set train.lr:1e-5",
        "Write keys with dots between them, `=`, and the value as YAML.",
    ),
    Code(
        "S011",
        "number that is too large",
        "The number is beyond what a computer's floating point holds.",
        "train: {lr: 1e999}",
        "Write a smaller one.",
    ),
)
