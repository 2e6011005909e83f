"""The catalogue of diagnostics: for each code its title, why it matters, an example and the way out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One entry; `specc explain CODE` prints it."""

    code: str
    title: str
    why: str
    example: str
    fix: str


CODES: dict[str, Code] = {}


def _add(*codes: Code) -> None:
    CODES.update({code.code: code for code in codes})


# --- S: the text -----------------------------------------------------------------------------------------

_add(
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

# --- T: keys and values ------------------------------------------------------------------------------------

_add(
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
)

# --- G: stages and what they need ------------------------------------------------------------------------

_add(
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

# --- P: models and the plan ----------------------------------------------------------------------------

_add(
    Code(
        "P001",
        "unknown model",
        "The name is neither in the catalog nor a folder that is there, so its sizes are not known.",
        "model: llama3-80b",
        "Use a catalog name, a Hugging Face id, a folder with a config.json, or `shape:` with numbers.",
    ),
    Code(
        "P002",
        "unusable config.json or run",
        "The model folder is there, but the numbers in its config.json are missing, absurd or not JSON.",
        "model: ckpt/llama   # config.json without hidden_size",
        "Repair the file at the key that is named, or give `shape:` with numbers.",
    ),
    Code(
        "P003",
        "family that does not run",
        "The runtime builds a fixed set of families and reads safetensors folders only.",
        "model: ckpt/gpt.nemo",
        "Convert .nemo files to a Hugging Face folder; use a model of a family that is named.",
    ),
    Code(
        "P004",
        "unusable shape",
        "The numbers under `shape:` cannot be those of a transformer.",
        "model: {shape: {layers: 2, hidden: 64, heads: 5}}",
        "Change the key that is named: heads divide hidden, kv_groups divide heads.",
    ),
    Code(
        "P005",
        "model that is not on this machine",
        "Compiling needs a model's sizes, and a folder of the cluster cannot be looked into here.",
        "model: /lustre/ckpt/mine",
        "Say which model it is: `{path: /lustre/ckpt/mine, name: llama3-8b}`, or give `shape:`.",
    ),
    Code(
        "P006",
        "unknown GPU",
        "The planner needs the memory and speed of the cluster's GPU.",
        "gpus: {type: h1000, per_node: 8}",
        "Use a name of specc/catalog/gpus, or add a file there.",
    ),
    Code(
        "P010",
        "size below one",
        "Parallel sizes and batches count from 1.",
        "parallel: {tp: 0}",
        "Use 1 for a dimension that is not cut.",
    ),
    Code(
        "P011",
        "layout that does not fill its GPUs",
        "TP x PP x CP GPUs hold one copy of the model, and copies fill the nodes.",
        "nodes: 1\nparallel: {tp: 8, pp: 3}",
        "Change the nodes or the layout, so that nodes x GPUs is a multiple of TP x PP x CP.",
    ),
    Code(
        "P012",
        "attention heads that do not divide by TP",
        "Each tensor-parallel rank computes as many heads.",
        "model: Qwen/Qwen2.5-7B   # 28 heads\nparallel: {tp: 8}",
        "Use a TP that divides the heads.",
    ),
    Code(
        "P013",
        "key-value groups that do not go with TP",
        "Each rank holds whole groups, or several ranks share a copy of one.",
        "parallel: {tp: 5}   # of a model with 8 groups",
        "Use a TP that divides the groups or is a multiple of them.",
    ),
    Code(
        "P014",
        "feed-forward width that does not divide",
        "The matrices of the feed-forward layer are cut by TP, those of experts by ETP.",
        "parallel: {tp: 3}   # of a model with ffn 5440",
        "Use a TP (or ETP) that divides the width.",
    ),
    Code(
        "P015",
        "tensor parallelism across the fast link",
        "TP exchanges data in every layer; beyond a node or NVLink domain it is many times slower.",
        "parallel: {tp: 16}   # with 8 GPUs a node",
        "Use a TP that divides the GPUs of a node, and PP for more.",
    ),
    Code(
        "P016",
        "pipeline stage without layers",
        "Every stage, and every chunk of it, holds at least one layer. They need not be equal.",
        "parallel: {pp: 64}   # of a model with 32 layers",
        "Use fewer stages, or stage_layers that add up to the model's layers.",
    ),
    Code(
        "P017",
        "interleaving that is not possible",
        "The interleaved schedule needs a pipeline, and micro-batches that are a multiple of PP.",
        "parallel: {pp: 1, vp: 2}",
        "Use vp: 1, or change pp or the micro-batch.",
    ),
    Code(
        "P018",
        "batch that cannot be dealt",
        "An optimizer step gives every data-parallel rank the same number of whole micro-batches.",
        "train: {global_batch: 10, micro_batch: 4}",
        "Make global_batch a multiple of micro_batch x DP.",
    ),
    Code(
        "P019",
        "row that cannot be cut",
        "Sequence parallelism cuts a row by TP, context parallelism by 2 x CP.",
        "train: {seq_length: 1001}\nparallel: {tp: 8}",
        "Use a seq_length that is a multiple.",
    ),
    Code(
        "P020",
        "context parallelism without Transformer Engine",
        "Only Transformer Engine's attention works on a part of the row.",
        "cluster: local-cpu\nparallel: {cp: 2}",
        "Use cp: 1, or a cluster with GPUs.",
    ),
    Code(
        "P021",
        "experts that do not divide",
        "EP deals whole experts to ranks of one pipeline stage.",
        "model: mixtral-8x7b\nparallel: {ep: 3}",
        "Use an EP that divides the experts and TP x CP x DP; 1 for a dense model.",
    ),
    Code(
        "P022",
        "row that is longer than the positions",
        "A model with learned positions has an embedding for so many and no more.",
        "train: {seq_length: 8192}   # of a model with 4096 learned positions",
        "Use a shorter seq_length.",
    ),
    Code(
        "P023",
        "packed rows under context parallelism",
        "Packed rows are computed one after another, which a part of a line cannot be.",
        "train: {packing: true}\nparallel: {cp: 2}",
        "Use packing: false, or cp: 1.",
    ),
    Code(
        "P030",
        "pinned layout that is predicted not to fit",
        "The predicted peak leaves too little for fragmentation; what the spec pins is kept all the same.",
        "model: llama3-70b\nnodes: 2\nparallel: {tp: 8, pp: 2}",
        "Take the pins out, or give more nodes; the message names the parts of the memory.",
    ),
    Code(
        "P031",
        "nothing fits",
        "No legal layout on these machines is predicted to fit into the GPUs' memory.",
        "model: llama3-70b\nnodes: 1   # of one 24 GB GPU",
        "Use what the message names: the smallest that does.",
    ),
    Code(
        "P032",
        "more nodes than a job may have",
        "The cluster profile bounds the nodes of one job.",
        "nodes: 64   # where the profile says nodes: 32",
        "Use fewer nodes, or correct the profile.",
    ),
    Code(
        "P033",
        "longer than the partition allows",
        "Slurm refuses a job above the partition's limit. A job that reaches its limit saves and continues.",
        "time: 24h   # where the profile says time: 4h",
        "Use the partition's limit.",
    ),
    Code(
        "P034",
        "more GPUs than a node has",
        "`gpus` is the number per node; the cluster profile says how many there are.",
        "gpus: 16   # where a node has 8",
        "Use at most the profile's number, and nodes for more.",
    ),
    Code(
        "P035",
        "no time to train before the job is told to save",
        "A job saves some time before its limit; a shorter job would save and queue again for ever.",
        "time: 4m, with slurm: {signal: 5m}",
        "Use a longer time, or a shorter `slurm.signal` in the cluster profile.",
    ),
    Code(
        "P036",
        "checkpoints beyond the quota",
        "A checkpoint holds the weights and Adam's state; those kept and the one being written lie there at "
        "once, and a run whose disk is full cannot save.",
        "train: {keep_last: 20}   # of a 70B model, where `results: {quota: 10TB}`",
        "Keep fewer checkpoints (train.keep_last, train.keep_best), or use a results folder with more room.",
    ),
)


# --- R: checkpoints, as the runtime saves and reads them -----------------------------------------------

_add(
    Code(
        "R020",
        "a checkpoint cannot be saved",
        "A rank could not write its part, most often because the disk is full; the last good one is kept.",
        "cannot save step 40 on rank 3: no space left on device",
        "Make room or lower `train.keep_last`, then run again: it goes on from the checkpoint that is named.",
    ),
    Code(
        "R021",
        "a checkpoint cannot be read",
        "Checksums are verified before a byte is parsed; a torn or changed file is named and not used.",
        "checkpoint `step-40` is refused: the checksum of `__1_0.distcp` does not match",
        "The step before is used by itself; bring the file back from a copy, or remove the step's folder.",
    ),
    Code(
        "R022",
        "a checkpoint of another model",
        "The manifest says what shape, head and optimizer were saved; they have to be those of the plan.",
        "checkpoint `step-40` is of another model: it has hidden 4096 instead of 2048",
        "Use the model it was made with; any TP, PP and DP will do. Only a language head may be replaced.",
    ),
)


# --- R: preflight, data and the loop -------------------------------------------------------------------

_add(
    Code(
        "R001",
        "a plan that cannot be read",
        "plan.json is not there, is no plan, or was written by a version with another plan format.",
        "`plan.json` is not a plan for this version: plan format 2, but this version reads format 1",
        "Compile the spec again with the version that is installed where the run starts.",
    ),
    Code(
        "R002",
        "no such job, role or program",
        "The ranks were started for a part that the plan, or this version of the runtime, does not have.",
        "the plan has no job `dpo`; it has sft",
        "Start what the plan has, as the emitted scripts do; compile again after an upgrade.",
    ),
    Code(
        "R003",
        "world size is not the plan's",
        "A role runs on exactly TP x PP x CP x DP processes.",
        "world size 6 is not TP 2 x PP 2 x CP 1 x DP 2 = 8 of role `model`",
        "Start as many processes as the product says, or compile for the GPUs that are there.",
    ),
    Code(
        "R004",
        "the device is missing",
        "The plan counts on GPUs and a machine does not show them.",
        "the plan is for h100-80gb, but torch sees no CUDA device",
        "Look at the driver and at CUDA_VISIBLE_DEVICES on the node, or use a profile for this machine.",
    ),
    Code(
        "R005",
        "data or a model that is not there",
        "A file, folder or URL that the run reads is absent or may not be read on a node.",
        "data.train is not there: `/data/train.jsonl`",
        "Put it where all nodes see it, or correct the path; for a container, mount its folder.",
    ),
    Code(
        "R006",
        "a run folder that cannot be written",
        "Metrics, checkpoints and logs go there; it has to be writable and shared by all nodes.",
        "cannot write in `/results/run/sft`: Permission denied",
        "Use another --dir (or the profile's `results`), or mend its rights.",
    ),
    Code(
        "R007",
        "a disk too small for the checkpoints",
        "The checkpoints that are kept, and the one being written, do not fit on the disk.",
        "3 checkpoints of 920.0 GiB need 2760.0 GiB, but `/results/run/sft` has 500.0 GiB free",
        "Lower `train.keep_last`, make room, or use another --dir.",
    ),
    Code(
        "R008",
        "another experiment in the folder",
        "A stage's folder belongs to one set of settings and inputs; others would mix two runs.",
        "`runs/x/sft` holds another experiment: `train.lr` changed",
        "Use another --dir, or `--fresh STAGE` to begin that stage again.",
    ),
    Code(
        "R009",
        "no free port",
        "The ranks meet at a port, and all that were tried are held by others.",
        "no free port in 29500..29563",
        "End what holds them (the message names it), or give another port.",
    ),
    Code(
        "R010",
        "a bad row",
        "A row is no JSON object, lacks a field of the template, or is no conversation that can be learnt.",
        "train.jsonl:12: no field `input`; the row has question, answer",
        "Mend the line that is named, or say in `data.train` how rows look (`prompt`, `response`, `format`).",
    ),
    Code(
        "R011",
        "no row that can be used",
        "The data is empty, or every row was dropped; the message counts why.",
        "no row of `train.jsonl` can be used: 40 response does not fit in 64 tokens",
        "Raise `train.seq_length`, change `sft.truncation`, or give other data.",
    ),
    Code(
        "R012",
        "no number of steps",
        "Neither `train.steps` nor `train.epochs` says when the run ends.",
        "neither `steps` nor `epochs` is above 0",
        "Set one of them.",
    ),
    Code(
        "R013",
        "a loss or gradient that is not finite",
        "The run diverged, or the data of the step holds something extreme; the weights were not touched.",
        "gradient norm is nan at step 812",
        "Use a lower learning rate or more warm-up; look at the step's rows.",
    ),
    Code(
        "R014",
        "data that changed under a run",
        "The order of rows is a function of the step; other rows would make the resumed run another one.",
        "the training data is not what steps 1 to 200 were trained on",
        "Bring the data back, or begin again with `--fresh STAGE`.",
    ),
    Code(
        "R015",
        "a package that is missing",
        "TensorBoard or Weights & Biases was asked for and is not installed where the ranks run.",
        "W&B was asked for but is not installed",
        "Install it in the image, or leave `train.wandb` or `train.tensorboard` out.",
    ),
    Code(
        "R016",
        "first weights that cannot be had",
        "The model comes from a stage that has not finished, or that left no checkpoint that holds.",
        "the model comes from stage `sft`, but `runs/x/sft` is not finished",
        "Run that stage first.",
    ),
    Code(
        "R017",
        "ranks that did not meet",
        "A process did not start, died early, or the network between the nodes is closed.",
        "rank 5 did not come to preflight within 300 s",
        "Look at that rank's log and at whether the nodes reach each other at the port.",
    ),
    Code(
        "R018",
        "out of memory",
        "A rank needed more memory than its device has.",
        "out of memory: tried to allocate 2.00 GiB",
        "Lower `train.micro_batch`, set `recompute: full`, or use more GPUs; `specc plan` shows the parts.",
    ),
    Code(
        "R019",
        "a token outside the vocabulary",
        "The tokenizer gives ids that the model has no embedding for.",
        "data.train holds token 32001, but model `llama-2-7b` has a vocabulary of 32000",
        "Use the model's own tokenizer, or a model whose vocabulary was enlarged.",
    ),
    Code(
        "R023",
        "a folder that another run writes to",
        "Two runs in one folder would write over each other's checkpoints; the message names who is there.",
        "another run writes to `runs/x/sft`: attempt `3`, process 4711 on node7",
        "Wait for it, end it with a file `stop` in that folder, or use another --dir.",
    ),
    Code(
        "R099",
        "a defect of specc",
        "Something went wrong that should not be possible; the traceback lies in the attempt's folder.",
        "KeyError: 'x' (traceback in runs/x/sft/attempts/1/traceback-3.txt)",
        "Run again: it goes on from the last checkpoint. Report it with the traceback.",
    ),
)

# --- R030 and on: Hugging Face folders, tokenizers, chat templates -----------------------------------------

_add(
    Code(
        "R030",
        "weights or tokenizer that are not there",
        "A model is a folder, a URL or a Hugging Face id; this one is none of these, or cannot be reached.",
        "model: meta-llama/Llama-3.1-8B   # on a node without network, with HF_HUB_OFFLINE=1",
        "Download it where there is a network (`hf download ID`) and set HF_HOME, or give the folder.",
    ),
    Code(
        "R031",
        "weights in a form that is not read",
        "Read are safetensors of the Llama, Mistral, Mixtral, Qwen2.5, Qwen3 and Gemma 1 families. Pickled "
        "files can run code when they are opened, and quantised tensors cannot be trained.",
        "model: {path: ./llama}   # holds pytorch_model.bin only",
        "Write it anew: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW).",
    ),
    Code(
        "R032",
        "weights of another model than the planned one",
        "A tensor is missing, unknown or of another size, or config.json says something else than the plan, "
        "so the model would be another one or none.",
        "the folder was replaced after `specc compile`",
        "Give the right folder, or compile again so that the plan takes its shape from this one.",
    ),
    Code(
        "R033",
        "damaged weights",
        "A safetensors file or its index does not add up: a download or a copy that stopped half-way.",
        "model-00002-of-00004.safetensors is shorter than its header says",
        "Fetch the file again and compare its checksum.",
    ),
    Code(
        "R034",
        "tokenizer that cannot be read",
        "Read are tokenizer.json and SentencePiece models; special tokens named beside them must exist.",
        "model: {path: ./llama}   # holds vocab.json and merges.txt only",
        "Write it anew: AutoTokenizer.from_pretrained(OLD).save_pretrained(NEW); or set model.tokenizer.",
    ),
    Code(
        "R035",
        "chat template that cannot be used",
        "It is missing, is no jinja2, or renders an answer otherwise when the conversation goes on, so "
        "that it cannot be told which tokens are the answer.",
        "data: {train: chat.jsonl}   # and a base model's tokenizer, which has no chat template",
        "Set model.chat_template: `extra_id`, or jinja2 that marks answers with {% generation %}.",
    ),
    Code(
        "R036",
        "conversation that cannot be used",
        "A turn lacks its text, the masked role does not speak, or nothing in it is to be learnt.",
        '{"messages": [{"role": "user", "content": "hi"}]}   # no answer',
        "Correct or remove the row that is named.",
    ),
    Code(
        "R037",
        "model that cannot be exported",
        "The folder cannot be written, or the model has no Hugging Face form.",
        "export: true   # of a reward model with a head of its own",
        "Make room or give another results folder; set `export: false` where there is no such form.",
    ),
)
