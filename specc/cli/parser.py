"""Which commands there are, what they take, and the help that teaches each by an example."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from specc import __version__
from specc.cli import serving_options, verbs

Adder = Callable[..., argparse.ArgumentParser]

FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDER = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
"""What shtab's scripts complete an argument with."""

SPECC = """\
Compile one typed spec into a plan and the scripts that run it, here or on Slurm.

  specc init sft_tiny                         copy a shipped spec to start from
  specc check sft_tiny.yaml                   every mistake, with its place and a way out
  specc plan sft_tiny.yaml                    layouts, memory, time
  specc run sft_tiny.yaml                     train here
  specc compile sft_tiny.yaml --target slurm  write the scripts for a cluster
"""

EXITS = """\
exit codes: 0 fine (warnings included) · 1 the spec or plan has problems · 2 usage
            3 something outside is missing or failed · 130 Ctrl-C"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command as said; `verb` is the function that does it. Exits with 2 on a usage error."""
    return build().parse_args(arguments)


def build() -> argparse.ArgumentParser:
    """The whole grammar. (Also what shell completion is generated from.)"""
    parser = _Parser(prog="specc", **_look(SPECC, EXITS))
    parser.add_argument("--version", action="version", version=f"specc {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def command(name: str, verb: Callable, about: str, *examples: str) -> argparse.ArgumentParser:
        shown = "\n".join(["examples:", *(f"  {example}" for example in examples)])
        made = commands.add_parser(name, help=about.split("\n")[0], **_look(about, shown))
        made.set_defaults(verb=verb)
        return made

    _read_commands(command)
    _estimate_command(command)
    _write_commands(command)
    serving_options.add(command)
    _calibrate_command(command)
    _report_command(command)
    _manual_commands(command)
    return parser


def _read_commands(command: Adder) -> None:
    check = command(
        "check",
        verbs.check,
        "find every mistake in a spec\n\n"
        "Reads, types, lowers and plans the spec, so that `does not fit` is found here and not after\n"
        "a night in the queue. Diagnostics go to stderr, or to stdout as a JSON list with --json.",
        "specc check specs/sft_llama3_70b.yaml",
        "specc check specs/sft_llama3_70b.yaml --set train.lr=1e-5 --cluster mycluster",
        "specc check specs/sft_llama3_70b.yaml --format json | jq '.[].message'",
    )
    _takes_spec(check)

    show = command(
        "show",
        verbs.show,
        "print the resolved spec\n\n"
        "Every default is written out, in canonical form: what it prints is a spec and resolves to itself.",
        "specc show specs/sft_tiny.yaml",
        "specc show specs/sft_tiny.yaml --stop-after graph",
    )
    _takes_spec(show)
    show.add_argument(
        "--stop-after",
        choices=["spec", "graph", "plan"],
        default="spec",
        help="which value of the pipeline to print (default: spec)",
    )

    plan = command(
        "plan",
        verbs.plan,
        "show jobs, layouts, memory and time\n\n"
        "One table per plan: how each role's GPUs are cut up, what the fullest GPU holds, and why.",
        "specc plan specs/sft_llama3_70b.yaml",
        "specc plan specs/sft_llama3_70b.yaml --set nodes=8",
        "specc plan specs/sft_llama3_70b.yaml --set nodes=null --options 5",
        "specc plan specs/sft_llama3_70b.yaml --set nodes=null --objective earliest --nodes 16",
        "specc plan specs/sft_llama3_70b.yaml --html plan.html",
        "specc plan specs/sft_llama3_70b.yaml --json | jq .totals",
    )
    _takes_spec(plan)
    plan.add_argument(
        "--options",
        metavar="N",
        type=_count,
        default=0,
        help="show up to N choices of nodes and time, none worse than another in both",
    )
    plan.add_argument(
        "--objective",
        choices=["fewest_nodes", "fastest", "cheapest", "earliest"],
        help="which number of nodes to choose where the spec leaves it open: plan.objective of every stage",
    )
    plan.add_argument(
        "--nodes", metavar="N", type=_count, help="nodes that may be taken at most: plan.max_nodes"
    )
    page = plan.add_argument("--html", metavar="FILE", help="write the plan as a page with pictures, too")
    _completes(page, FILE)


def _estimate_command(command: Adder) -> None:
    estimate = command(
        "estimate",
        verbs.estimate,
        "tell memory and speed of one given layout\n\n"
        "No spec is needed: name a model, a GPU and the sizes. Layers that do not divide are dealt out.\n"
        "What breaks a rule is answered too, and named.",
        "specc estimate --model llama3-70b --gpu h100-80gb --gpus 64 --tp 8 --pp 4 --gbs 128 --seq 4096",
        "specc estimate --config model/config.json --gpu b200 --gpus 8 --tp 2 --dtype fp8 --json",
        "specc estimate --model llama3-8b --gpu-memory 62 --gpu-tflops 400 --gpus 8 --phase reward",
    )
    model = estimate.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="NAME", help="a name of the catalog or a Hugging Face id")
    config = model.add_argument("--config", metavar="FILE", help="a Hugging Face config.json")
    _completes(config, FILE)
    estimate.add_argument("--gpu", metavar="NAME", help="a GPU of the catalog, such as h100-80gb")
    estimate.add_argument("--gpu-memory", metavar="GIB", type=_amount, help="usable memory of one GPU")
    estimate.add_argument("--gpu-tflops", metavar="N", type=_amount, help="dense bf16 peak of one GPU")
    estimate.add_argument("--gpu-bandwidth", metavar="GB/S", type=_amount, help="of one GPU's memory")
    estimate.add_argument("--gpus-per-node", metavar="N", type=_size, help="where it is not the catalog's")
    estimate.add_argument("--gpus", metavar="N", type=_size, required=True, help="how many GPUs")
    for name, about in LAYOUT.items():
        estimate.add_argument(f"--{name}", metavar="N", type=_size, default=1, help=f"{about} (default: 1)")
    estimate.add_argument("--gbs", metavar="N", type=_size, help="rows of a step (default: DP x MBS)")
    estimate.add_argument("--seq", metavar="N", type=_size, help="tokens of a row (default: 4096)")
    estimate.add_argument(
        "--recompute-layers", metavar="N", type=_size, help="of each stage, under full (default: all)"
    )
    estimate.add_argument(
        "--recompute-modules", metavar="A,B", type=_modules, help="under selective (default: core_attn)"
    )
    for name, (choices, about) in CHOICES.items():
        estimate.add_argument(
            f"--{name}", choices=choices, default=choices[0], help=f"{about} (default: {choices[0]})"
        )
    estimate.add_argument(
        "--recompute",
        choices=["none", "selective", "full"],
        help="what the backward pass computes again (default: none, as far as it is known)",
    )
    estimate.add_argument(
        "--grad-dtype",
        choices=["fp32", "bf16"],
        help="of gradients (default: fp32; under fp16, fp8 and narrower 16 bits)",
    )
    estimate.add_argument(
        "--no-expandable-segments", action="store_true", help="the allocator's segments do not grow"
    )
    _takes_json(estimate)


LAYOUT = {
    "tp": "tensor-parallel ranks",
    "pp": "pipeline stages",
    "vp": "chunks of each stage",
    "cp": "context-parallel ranks",
    "ep": "expert-parallel ranks",
    "etp": "ranks that share one expert",
    "mbs": "rows of a micro-batch",
}

MODULES = ("core_attn", "layernorm", "mlp", "moe", "moe_act", "shared_experts", "mla_up_proj")

CHOICES = {
    "dtype": (["bf16", "fp16", "fp8", "mxfp8", "nvfp4", "fp32"], "of products"),
    "offload": (["none", "optimizer"], "what lies in the host's memory"),
    "phase": (["pretrain", "sft", "reward", "actor", "critic", "generate"], "what the model does"),
}


def _size(said: str) -> int:
    """A whole number from 1 to 16 million."""
    value = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0
    if not 1 <= value <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{said!r} is not a whole number from 1 to {1 << 24}")
    return value


def _modules(said: str) -> tuple[str, ...]:
    """Names of parts of a layer, with commas between."""
    names = tuple(dict.fromkeys(said.split(",")))
    if strange := [name for name in names if name not in MODULES]:
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is none of {', '.join(MODULES)}")
    return names


def _amount(said: str) -> float:
    """A positive number that is not absurd."""
    with contextlib.suppress(ValueError):
        if 0 < float(said) < 1e9:
            return float(said)
    raise argparse.ArgumentTypeError(f"{said!r} is not a positive number")


def _write_commands(command: Adder) -> None:
    compile_ = command(
        "compile",
        verbs.compile,
        "write the scripts that run the spec\n\n"
        "The bundle is plan.json and scripts a person can read. The same spec, profile, --set and version\n"
        "give the same bytes; who compiled it, when and where stands in provenance.json.",
        "specc compile specs/sft_llama3_70b.yaml --target slurm",
        "specc compile specs/sft_llama3_70b.yaml --target slurm -o bundle && bash bundle/submit.sh",
    )
    _takes_spec(compile_)
    compile_.add_argument(
        "--target", choices=["slurm", "local"], required=True, help="what the scripts are for"
    )
    output = compile_.add_argument(
        "-o", "--output", metavar="DIR", help="where to write (default: build/NAME/TARGET)"
    )
    _completes(output, FOLDER)

    run = command(
        "run",
        verbs.run,
        "train here, on this machine's GPUs or CPU\n\n"
        "Stages run in order, a finished one is skipped, a stopped one resumes. Ctrl-C saves a checkpoint\n"
        "first, a second Ctrl-C does not. --tiny runs the spec's twin: the same stages, settings and files,\n"
        "with models of two layers and a few steps, on the CPU; it finds a wrong key or path before the\n"
        "cluster does.",
        "specc run specs/sft_tiny.yaml",
        "specc run specs/sft_llama3_70b.yaml --tiny",
        "specc run specs/sft_tiny.yaml --fresh sft",
    )
    _takes_spec(run, as_json=False)
    run.add_argument("--tiny", action="store_true", help="run the spec's tiny twin instead")
    folder = run.add_argument("--dir", metavar="DIR", help="the run folder (default: runs/NAME)")
    _completes(folder, FOLDER)
    run.add_argument(
        "--fresh",
        metavar="STAGE",
        action="append",
        default=[],
        help="begin STAGE anew; its folder is moved aside",
    )


def _calibrate_command(command: Adder) -> None:
    calibrate = command(
        "calibrate",
        verbs.calibrate,
        "learn from a run how fast and how large its cluster really is\n\n"
        "Compares what the run measured with what is predicted for it, and keeps it beside the user's own\n"
        "cluster profiles, or in the file that -o names: clusters/NAME.calibration.json beside a spec goes\n"
        "before. Later plans for that cluster use the correction and name it.",
        "specc calibrate runs/sft-tiny",
        "specc calibrate /results/sft-llama3-70b -o clusters/mycluster.calibration.json",
    )
    run = calibrate.add_argument("run", metavar="RUN", help="a run folder")
    _completes(run, FOLDER)
    output = calibrate.add_argument("-o", "--output", metavar="FILE", help="where to keep it")
    _completes(output, FILE)
    calibrate.add_argument("--dry-run", action="store_true", help="compare, and keep nothing")
    _takes_json(calibrate)


def _report_command(command: Adder) -> None:
    report = command(
        "report",
        verbs.report,
        "show runs as a page\n\n"
        "Stages, curves, samples, and what was predicted against what was measured; several runs are drawn\n"
        "into the same pictures. One file without scripts or network. A run may still be running.",
        "specc report runs/sft-tiny",
        "specc report runs/a runs/b -o compared.html",
    )
    runs = report.add_argument("runs", metavar="RUN", nargs="+", help="a run folder")
    _completes(runs, FOLDER)
    output = report.add_argument("-o", "--output", metavar="FILE", help="the page (default: RUN/report.html)")
    _completes(output, FILE)
    _takes_json(report)


def _manual_commands(command: Adder) -> None:
    explain = command(
        "explain",
        verbs.explain,
        "tell about a diagnostic's code, or why a value is what it is",
        "specc explain P003",
        "specc explain specs/sft_llama3_70b.yaml train.lr",
        "specc explain specs/sft_llama3_70b.yaml parallel",
    )
    _completes(
        explain.add_argument("about", metavar="CODE|SPEC", help="a code such as P003, or a spec"), FILE
    )
    explain.add_argument(
        "path", metavar="PATH", nargs="?", help="with a spec: a value in it, such as train.lr"
    )
    _takes_where(explain)
    _takes_json(explain)

    init = command(
        "init",
        verbs.init,
        "copy a shipped spec to start from\n\n"
        "Writes DIR/NAME.yaml and the cluster profile it names as DIR/clusters/…; nothing is overwritten.",
        "specc init sft_tiny",
        "specc init sft_llama3_70b experiments",
    )
    init.add_argument("name", metavar="NAME", help="a name that `specc ls` shows")
    init.add_argument("folder", metavar="DIR", nargs="?", default=".", help="where to (default: here)")

    listed = command("ls", verbs.ls, "list the shipped specs", "specc ls", "specc ls --json | jq '.[].name'")
    _takes_json(listed)

    schema = command(
        "schema",
        verbs.schema,
        "print the JSON Schema of a spec, for editors\n\n"
        "Put `# yaml-language-server: $schema=specc.schema.json` on a spec's first line.",
        "specc schema > specc.schema.json",
    )
    _takes_json(schema)

    completion = command(
        "completion",
        verbs.completion,
        "print the completion script of a shell",
        'eval "$(specc completion bash)"',
        "specc completion zsh > ~/.zfunc/_specc",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")


def _takes_spec(parser: argparse.ArgumentParser, as_json: bool = True) -> None:
    _completes(parser.add_argument("spec", metavar="SPEC", help="the spec, a YAML file"), FILE)
    _takes_where(parser)
    parser.add_argument(
        "--format",
        choices=["text", "json"],
        default="text",
        help="how diagnostics are written (default: text)",
    )
    if as_json:
        _takes_json(parser)


def _takes_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="replace one value, checked like the file (repeatable)",
    )
    parser.add_argument(
        "--cluster", metavar="NAME|FILE", help="a cluster profile instead of the one the spec names"
    )


def _takes_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON on stdout")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise argparse.ArgumentTypeError(f"`{text[:40]}` is not a number from 1 to 1000")
    return int(text)


def _completes(argument: argparse.Action, with_what: dict[str, str]) -> None:
    argument.complete = with_what  # type: ignore[attr-defined]  # where shtab looks


class _Parser(argparse.ArgumentParser):
    """argparse, with a guess at what was meant."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = difflib.get_close_matches(wrong[1], re.findall(r"'([^']*)'", wrong[2]), n=1) if wrong else []
        super().error(message + (f"; did you mean `{near[0]}`?" if near else ""))


def _look(about: str, epilog: str) -> dict:
    return {
        "description": about[0].upper() + about[1:],
        "epilog": epilog,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
