"""G: stages and what they need."""

from specc.codes.code import Code

CODES = (
    Code(
        "G001",
        "unknown stage",
        "`from:` names a stage of the same spec whose checkpoint is taken.",
        "model: {from: shat}   # and a stage named chat",
        "Use the name of a stage, or {run: FOLDER, stage: NAME} for a stage of another run.",
    ),
    Code(
        "G002",
        "stages in a circle",
        "Each of these stages waits for another one of them, so none can begin.",
        "a: {model: {from: b}}\nb: {model: {from: a}}",
        "Let one of them start from a model that is there already.",
    ),
    Code(
        "G003",
        "head of another kind",
        "A reward model gives numbers; it cannot go on as a model of words, nor with other attributes.",
        "chat: {algorithm: sft, model: {from: rm}}   # and rm is a reward model",
        "Start from the model that the reward model began from, or let the head begin anew.",
    ),
    Code(
        "G004",
        "stage that makes something else",
        "A stage makes a model or rows; `model.from` wants the one, `from` of a data set the other.",
        "chat: {algorithm: sft, data: {train: {from: rm}}}   # and rm is a reward model",
        "Name a stage that makes what is asked for.",
    ),
    Code(
        "G005",
        "two stages of one name",
        "A section that unrolls rounds becomes several stages, and one of them has another section's name.",
        "stages: {x: {algorithm: rejection, ...}, x-1-train: {algorithm: sft, ...}}",
        "Call one of the sections otherwise.",
    ),
    Code(
        "G010",
        "file that is not on this machine",
        "It may be on the cluster, so compiling only warns; a run on this machine needs it here.",
        "data: {train: /shared/data/train.jsonl}",
        "Check the path; relative ones start from the spec's folder.",
    ),
    Code(
        "G011",
        "data without rows",
        "The file or folder is there, but there is nothing in it to learn from.",
        "data: {train: empty.jsonl}",
        "Check that it was written to its end, and that the path is the one you mean.",
    ),
    Code(
        "G012",
        "data that cannot be read",
        "The file cannot be opened, is not UTF-8, or is not what its ending says.",
        "data: {train: latin1.jsonl}",
        "Convert it at the line and byte that are named.",
    ),
    Code(
        "G013",
        "row that is not a JSON object",
        "JSONL is one JSON object per line.",
        '[{"input": "1+1", "output": "2"}]   # a JSON array in one line',
        "Write one object per line, for example with jq -c '.[]'.",
    ),
    Code(
        "G014",
        "row without its fields",
        "The templates name fields that this row does not have, or it is no conversation.",
        'response: "{answr}"   # rows hold question and answer',
        "Name the fields that the rows have.",
    ),
    Code(
        "G015",
        "file of an unknown format",
        "The ending says how a file is read.",
        "data: {train: rows.csv}",
        "Convert it to .jsonl or .parquet.",
    ),
    Code(
        "G016",
        "unknown generated data",
        "`builtin:` names data that ships as code.",
        "data: {train: builtin:arithmetics}",
        "Use builtin:arithmetic.",
    ),
    Code(
        "G020",
        "model folder without weights",
        "Weights are read from .safetensors files only: nothing in them can run, and parts can be read.",
        "model: ckpt/llama   # only pytorch_model.bin",
        "Convert them with transformers' save_pretrained, or use weights: random.",
    ),
    Code(
        "G021",
        "unusable tokenizer",
        "A tokenizer is builtin:bytes, a tokenizer.json, a SentencePiece .model, or a folder that holds one.",
        "model: {name: llama3-8b, tokenizer: empty-folder}",
        "Give the file or folder that holds it.",
    ),
)
