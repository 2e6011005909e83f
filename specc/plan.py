"""The plan: the one value that crosses from the compiler to the runtime.

A plan is complete: `plan.json` alone is enough for the runtime on a node that has neither pydantic
nor yaml, so this module imports the standard library only. Everything is a frozen dataclass;
`to_json` and `from_json` are inverse to each other, and `from_json` refuses what it does not know
with a `PlanError` that names the place.

Both halves of the project meet here and nowhere else: the compiler writes a `Plan`, the templates
loop over it, the runtime obeys it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field

SERVE = "serve"
"""The program of processes that answer other groups' requests.

SPECC_LISTEN is HOST:PORT, where such a group listens; SPECC_PEERS says where the others find the groups that
serve: `critic=HOST:PORT`, comma-separated. The token lies in the attempt's folder, so that all groups of a
job have the same SPECC_ATTEMPT. A group that serves leaves `stop`, `heartbeat` and SIGTERM to
the first group, which needs it to the end; it leaves with exit code 0 when the file OVER is there."""

OVER = "over"
"""File in the attempt's folder, made by the launcher when the first group has ended: servers may leave."""

ANSWER = "answer"
"""The program of processes that answer people: a model behind HTTP, until it is told to stop."""

FORMAT = 1
"""Version of the plan's form. The runtime refuses a plan of another version at preflight."""


class PlanError(ValueError):
    """The text is not a plan of this format; the message names the place."""


@dataclass(frozen=True)
class Shape:
    """The numbers that define a decoder-only transformer, independent of any weights."""

    family: str  # llama | mistral | mixtral | qwen2 | qwen3 | gemma | nemotron | gpt
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_groups: int
    head_dim: int
    vocab: int  # as published, before any padding
    max_positions: int
    norm: str = "rmsnorm"  # rmsnorm | rmsnorm_1p (weight + 1) | layernorm | layernorm_1p
    norm_epsilon: float = 1e-5
    activation: str = "swiglu"  # swiglu | geglu | gelu | squared_relu
    position: str = "rope"  # rope | learned
    rope_base: float = 10000.0
    rope_percent: float = 1.0
    rope_scaling: dict[str, typing.Any] = field(default_factory=dict, hash=False)  # as in config.json
    tied: bool = False  # the output layer is the embedding
    qkv_bias: bool = False
    linear_bias: bool = False  # a bias on every linear layer
    qk_norm: bool = False
    sliding_window: int = 0  # tokens; 0 for none
    embedding_scale: float = 1.0  # Gemma multiplies embeddings by sqrt(hidden)
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    shared_expert_ffn: int = 0
    init_std: float = 0.02


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from."""

    kind: str = "random"  # random | hf (a safetensors folder) | stage (of this run) | run (another folder) |
    # checkpoint (a folder of steps, or one step)
    path: str = ""  # hf: folder or URL; run: the run folder; checkpoint: the folder
    revision: str = ""  # hf: commit or tag
    stage: str = ""  # stage, run: the stage's name


@dataclass(frozen=True)
class Model:
    """A model as one role uses it."""

    name: str  # what the spec said; for people
    shape: Shape
    weights: Weights
    tokenizer: str = "builtin:bytes"  # builtin:bytes, a folder, a tokenizer.json, or a SentencePiece .model
    chat_template: str = ""  # a jinja2 template, the name of a built-in one, or empty: the tokenizer's own
    head: str = "language"  # language | scalar | attributes
    attributes: tuple[str, ...] = ()


NO_MODEL = Model("", Shape("", 0, 0, 0, 0, 0, 0, 0, 0), Weights("none"))
"""The model of a role that has none: a clerk, which makes rows of rows in one plain process."""


@dataclass(frozen=True)
class Layout:
    """How a role's GPUs are cut up. World size is tp * pp * cp * dp."""

    tp: int = 1
    pp: int = 1
    vp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 1
    dp: int = 1
    sequence_parallel: bool = False
    stage_layers: tuple[int, ...] = ()  # decoder layers of chunk v of stage p at index v * pp + p

    @property
    def world_size(self) -> int:
        return self.tp * self.pp * self.cp * self.dp

    def __str__(self) -> str:
        sizes = [("TP", self.tp), ("PP", self.pp), ("VP", self.vp), ("CP", self.cp), ("EP", self.ep)]
        sizes += [("ETP", self.etp)]
        shown = [f"{name}{size}" for name, size in sizes if size > 1]
        return "·".join([*shown, f"DP{self.dp}"])


@dataclass(frozen=True)
class Memory:
    """Predicted peak per GPU at the worst rank, GiB."""

    total_gib: float = 0.0
    capacity_gib: float = 0.0
    oom_probability: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    worst_rank: int = 0
    phases: dict[str, float] = field(default_factory=dict)  # GiB of each; the largest is the total
    unverified: tuple[str, ...] = ()  # phases whose bytes were never held to a run or to the real objects


@dataclass(frozen=True)
class Role:
    """One model on its share of a job's machines.

    Roles of one `group` are models in the same processes: on the same nodes and GPUs, with the same world
    size, taking turns. The group's first role gives it its name and says what the processes run.
    """

    name: str  # model (the only role of a single-role job) | actor | critic | reward | reference
    program: str  # a module of runtime/algorithms; of a group, its first role's is run
    nodes: int
    gpus: int  # per node; on a CPU, processes per node; 0 for a clerk
    layout: Layout
    micro_batch: int
    global_batch: int
    model: Model
    precision: str = "bf16"  # bf16 | fp32
    recompute: str = "none"  # none | selective | full
    recompute_layers: int = 0  # full: layers of each chunk that are computed again; 0 for all
    recompute_modules: tuple[str, ...] = ()  # selective: Megatron's names; none for core_attn alone
    implementation: str = "local"  # local | te
    distributed_optimizer: bool = True
    memory: Memory = Memory()
    step_seconds: float = 0.0
    why: str = ""
    calibration: str = ""  # what corrected memory and time; empty: nothing did
    group: str = ""  # the first role of the processes it lives in; empty: its own
    trains: bool = True
    swaps_with: str = ""  # role of its group with the same shape and layout: its weights wait in the host's
    # memory and trade places with the other's while it is asked; empty: a model of its own on the GPU
    offload_optimizer: bool = False  # Adam's state waits in the host's memory while nothing is trained
    rows: int = 0  # responses that each replica generates at once; 0 for a role that generates nothing

    @property
    def is_clerk(self) -> bool:
        """Whether it has no model: one process without torchrun, a GPU or torch (model: NO_MODEL)."""
        return self.gpus == 0


@dataclass(frozen=True)
class Group:
    """Processes that start and end together: one het group under Slurm, one torchrun.

    A group that serves answers the others' requests and has no end of its own: it is ended when the first
    group has finished.
    """

    name: str  # of its first role
    roles: tuple[Role, ...]

    @property
    def role(self) -> Role:
        """The role that the processes are started as."""
        return self.roles[0]

    @property
    def nodes(self) -> int:
        return self.role.nodes

    @property
    def gpus(self) -> int:
        return self.role.gpus

    @property
    def serves(self) -> bool:
        return self.role.program == SERVE


@dataclass(frozen=True)
class Span:
    """A stretch of a predicted step. Stretches of one lane follow one another; `wait` is one, too."""

    name: str  # generate | log-probs | reference | judge | train | wait | ...
    lane: str  # the group it runs on
    start: float  # seconds
    seconds: float


@dataclass(frozen=True)
class Job:
    """One allocation: one sbatch, or one launch on this machine."""

    name: str
    stage: str  # also the name of its folder in the run folder
    nodes: int
    depends_on: tuple[str, ...]  # names of jobs
    roles: tuple[Role, ...]
    settings: dict[str, typing.Any]  # the algorithm's own fields, validated once by the compiler
    data: dict[str, typing.Any]  # by use: a data set, a list of them, or null. One that a stage makes has
    # `path` "" and `from` {stage, run}; run is "" for this run
    time_seconds: int = 0  # 0: no limit
    port: int = 29500  # rendezvous on one machine; under Slurm derived from the job id
    collective_timeout_seconds: int = 1800
    heartbeat_seconds: int = 3600  # a run that shows no sign of life for so long is dead
    export: bool = False  # write hf/ at the end
    placement: str = "hetjob"  # several groups under Slurm: hetjob | split (one allocation, by node)
    timeline: tuple[Span, ...] = ()  # of one step where several roles make it, as predicted
    env: dict[str, str] = field(default_factory=dict)
    identity: dict[str, typing.Any] = field(default_factory=dict)  # maths fields and inputs by path
    hash: str = ""  # of `identity`
    discards: tuple[str, ...] = ()  # stages whose rows, shards and checkpoints go when this job has finished;
    # what says how they ended stays, and they count as finished

    @property
    def groups(self) -> tuple[Group, ...]:
        """The roles by the processes they live in, in the order of the first of each."""
        names = dict.fromkeys(role.group or role.name for role in self.roles)
        return tuple(
            Group(name, tuple(role for role in self.roles if (role.group or role.name) == name))
            for name in names
        )


@dataclass(frozen=True)
class Container:
    engine: str = "none"  # none | pyxis | apptainer
    image: str = ""
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slurm:
    account: str = ""
    partition: str = ""
    qos: str = ""
    gpus_flag: str = "gpus-per-node"  # gpus-per-node | gres | none
    gpu_type: str = ""  # as in --gpus-per-node=TYPE:N; empty for none
    exclusive: bool = True
    cpus_per_task: int = 0
    mem: str = ""
    signal_seconds: int = 300  # before the limit the job is told to save
    attempts: int = 3  # of a hetjob, queued in advance: each starts when those before it were lost
    extra: tuple[str, ...] = ()  # further sbatch flags, each as `--flag=value`


@dataclass(frozen=True)
class Cluster:
    """Where the plan runs: what the profile said, as far as scripts and the runtime need it."""

    name: str
    scheduler: str  # slurm | none
    gpu: str  # a catalog name, or cpu
    gpus_per_node: int
    device: str  # cuda | cpu
    backend: str  # nccl | gloo
    python: str = "python3"  # the interpreter on a node that has the runtime's packages
    path: str = ""  # folder on a node that holds specc and runtime; empty when they are installed there
    results: str = ""  # folder on a node under which run folders lie
    cache: str = ""
    data: str = (
        ""  # folder on a node that relative paths of the spec start from; empty: where submit.sh is called
    )
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # names of environment variables, taken from the shell at submit
    container: Container = Container()
    slurm: Slurm = Slurm()


@dataclass(frozen=True)
class Totals:
    gpu_hours: float = 0.0
    wall_seconds: float = 0.0
    jobs: int = 0


@dataclass(frozen=True)
class Plan:
    format: int
    name: str
    version: str  # of specc
    seed: int
    cluster: Cluster
    jobs: tuple[Job, ...]
    totals: Totals = Totals()
    overrides: tuple[str, ...] = ()  # --set, as given
    spec: dict[str, typing.Any] = field(default_factory=dict)  # the resolved spec

    def job(self, name: str) -> Job:
        """The job of that name; PlanError when there is none."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise PlanError(f"the plan has no job `{name}`; it has {', '.join(j.name for j in self.jobs)}")


def role_of(job: Job, name: str) -> Role:
    """The role of that name; PlanError when there is none."""
    for role in job.roles:
        if role.name == name:
            return role
    raise PlanError(f"job `{job.name}` has no role `{name}`; it has {', '.join(r.name for r in job.roles)}")


def role_folder(job: Job, role: str) -> str:
    """Where a role's metrics and checkpoints lie within its stage's folder; empty: in that folder itself, as
    those of the only role do, and of the one called `model` beside its reference.
    """
    return "" if len(job.roles) == 1 or role == "model" else role


def to_json(plan: Plan) -> str:
    """The plan as JSON text: keys in the order of the fields, so the same plan gives the same bytes."""
    return json.dumps(dataclasses.asdict(plan), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Plan:
    """Read a plan; PlanError names what is wrong and where."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise PlanError("a plan is a JSON object")
    if data.get("format") != FORMAT:
        found = data.get("format")
        raise PlanError(f"plan format {found!r}, but this version reads format {FORMAT}; compile again")
    return _read(Plan, data, "plan")


def _read(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    if kind is typing.Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        return tuple(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {key: _read(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        raise TypeError(f"{where}: plans hold no unions")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))  # True is an int, too
    _expect(fits, where, kind.__name__, value)
    return value


def _read_dataclass(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    _expect(isinstance(value, dict), where, "an object", value)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise PlanError(f"{where}: unknown key `{key}`")
    for name, f in fields.items():
        has_default = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in value and not has_default:
            raise PlanError(f"{where}: `{name}` is missing")
    return kind(**{name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _expect(holds: bool, where: str, wanted: str, value: typing.Any) -> None:
    if not holds:
        raise PlanError(f"{where}: expected {wanted}, not {type(value).__name__}")
