"""T: keys and values."""

from specc.codes.code import Code

CODES = (
    Code(
        "T001",
        "unknown key",
        "A key that nothing reads is a setting that has no effect; most often it is misspelt.",
        "train: {learning_rat: 1e-5}",
        "Use the key that is suggested; `specc schema` lists all of them for your editor.",
    ),
    Code(
        "T002",
        "value of the wrong type",
        "The key takes a value of another kind. In YAML 1.2 `yes` and `4:00` are text, `1e-6` is a number.",
        "train: {lr: fast}",
        "Write what is expected; quotes make text of anything, and no quotes a number of digits.",
    ),
    Code(
        "T003",
        "value that is not among the choices",
        "The key takes one of a few words.",
        "train: {schedule: cosin}",
        "Use one of the words that are listed.",
    ),
    Code(
        "T004",
        "value out of range",
        "The value is of the right kind but cannot mean anything, such as a negative batch.",
        "train: {global_batch: 0}",
        "Use a value within the bounds that are named.",
    ),
    Code(
        "T005",
        "missing key",
        "Nearly everything has a default; a name, an algorithm, a model and data have not.",
        "name: mine\nalgorithm: sft\nmodel: llama3-8b   # and no data",
        "Add the key.",
    ),
    Code(
        "T006",
        "name that cannot be used",
        "Names become folders, job names and parts of paths, so they keep to what is safe in all of them.",
        "name: My Run!",
        "Use small letters, digits, `.`, `_` and `-`; no dots in a stage's name.",
    ),
    Code(
        "T007",
        "time or size without its unit",
        "A bare number could be seconds or hours, and `4:00` minutes or hours.",
        "time: 90",
        "Write 4h, 90m, 04:00:00 or 1-00:00:00; 80GB or 80GiB.",
    ),
    Code(
        "T008",
        "unknown algorithm",
        "Algorithms are the files of specc/algorithms; there is none of this name.",
        "algorithm: stf",
        "Use one of those that are listed.",
    ),
    Code(
        "T009",
        "values that do not go together",
        "Each value is fine by itself, but not beside the other one that is named.",
        "train: {lr: 1e-6, min_lr: 1e-5}",
        "Change one of them.",
    ),
    Code(
        "T010",
        "no such cluster profile",
        "They are searched beside the spec, at its git root, in $XDG_CONFIG_HOME/specc, then in specc.",
        "cluster: mycluster   # and no clusters/mycluster.yaml",
        "Write the profile, starting from a shipped one: `specc init NAME` copies one along.",
    ),
    Code(
        "T011",
        "no cluster named",
        "Whether something fits depends on the machine, so the built-in example-h100 was taken.",
        "name: mine\nalgorithm: sft   # and no cluster",
        "Add `cluster: NAME`, or give --cluster.",
    ),
    Code(
        "T012",
        "text of the wrong form",
        "The text goes into a script or a path, which only takes this form.",
        'container: {mounts: ["/data"]}',
        "Write it in the form that is named.",
    ),
    Code(
        "T013",
        "calibration that cannot be used",
        "What `specc calibrate` kept for a cluster is part of its profile, so a torn file stops it.",
        "clusters/mine.calibration.json   # half of a file",
        "Remove the file, or write it again with `specc calibrate RUN`.",
    ),
)
