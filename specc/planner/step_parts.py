"""A predicted step taken apart: where its seconds go, each part with its formula and the numbers in it.

The parts add up to `cost.step_seconds`: they are made of the same terms, and each formula, read as
arithmetic, gives its part. All but the bubble are those of the slowest pipeline stage, which the others wait
for. FLOPs and bytes per second are those that are reached, not those on paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner import cost, layer_time
from specc.planner.cost import MicroBatch, Stage
from specc.planner.hardware import Gpu, fast_domain
from specc.planner.layer_time import Forward, LayerTime
from specc.planner.memory import Workload
from specc.planner.shapes import dense_layers, padded_vocab, parameters


@dataclass(frozen=True)
class Number:
    """A symbol of a formula, what it is worth here, and what it stands for."""

    symbol: str
    value: float
    meaning: str


@dataclass(frozen=True)
class Part:
    """Where some of a step's seconds go."""

    name: str
    seconds: float
    formula: str
    numbers: tuple[Number, ...]

    def __str__(self) -> str:
        said = ", ".join(f"{each.symbol} = {each.value:.4g} {each.meaning}" for each in self.numbers)
        return f"{self.name}: {self.seconds:.4g} s = {self.formula}, {said}"


def step_parts(
    work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
) -> tuple[Part, ...]:
    """The parts of a step that take any time, in the order in which a micro-batch meets them; nothing for a
    CPU, whose layouts are only ranked.
    """
    if gpu.name == "cpu":
        return ()
    if work.only_generates:
        from specc.planner.asking import parts_of_generation  # which counts on this module's parts

        return parts_of_generation(work, layout, micro_batch, gpu)
    taken = _Taken(work, layout, micro_batch, recompute, gpu, node)
    found = [*taken.layers(), taken.logits(), taken.bubble(), taken.sends()]
    if work.trains:
        found += taken.update()
    if work.trains and work.passes:
        found += asked_parts(work, layout, micro_batch, gpu, node)
    return tuple(part for part in found if part.seconds > 0)


def asked_parts(work: Workload, layout: Layout, micro_batch: int, gpu: Gpu, node: int) -> list[Part]:
    """What is asked of a reference beside the training."""
    passes, swaps = cost.asked_seconds(work, layout, micro_batch, gpu, node)
    numbers = (
        Number("k", work.passes, "passes without gradients"),
        Number("F", passes / work.passes, "s of one over the rows of a step"),
    )
    held = work.element_bytes * parameters(work.shape, work.head) / (layout.tp * layout.pp)
    sent = (
        Number("B", held, "bytes of a rank's weights"),
        Number("b", max(gpu.host_gb_per_s, 1) * 1e9, "bytes/s over the host's link"),
    )
    return [
        Part("reference", passes, "k * F", numbers),
        Part("weights that trade places", swaps, "2 * 2 * B / b", sent),
    ]


class _Taken:
    """The terms of one step, and its parts."""

    def __init__(
        self, work: Workload, layout: Layout, micro_batch: int, recompute: str, gpu: Gpu, node: int
    ) -> None:
        self.work, self.layout, self.gpu = work, layout, gpu
        self.domain = fast_domain(gpu, node)
        self.each = cost.micro_batch_time(work, layout, micro_batch, recompute, gpu, node)
        self.stage, self.is_last = slowest_stage(layout, self.each)
        self.turns = max(1, work.global_batch // (micro_batch * layout.dp))
        self.forward = layer_time.forward(work, layout, micro_batch)
        dense = bool(dense_layers(work.shape))
        self.plain = layer_time.forward(work, layout, micro_batch, plain=True) if dense else None
        self.mtp = self.each.mtp if self.is_last else 0
        self.m = Number("m", self.turns, "micro-batches a step")
        self.n = Number("n", self.stage.layers + self.stage.plain + self.mtp, "layers of the slowest stage")
        self.T = Number("T", self.each.tokens, "tokens of a micro-batch on a rank")
        self.t = Number("t", layout.tp, "TP")

    def layers(self) -> list[Part]:
        """What the layers of the slowest stage take."""
        work, layout, at = self.work, self.layout, self.each.at
        both = 1 + layer_time.BACKWARD if work.trains else 1.0
        attended = 1 + layer_time.ATTENTION_BACKWARD if work.trains else 1.0
        passes = Number("x", both, "passes: forward, and backward twice as long" if work.trains else "pass")
        shape = work.shape
        met = self._mean(lambda forward: forward.products) * layout.tp / (2 * self.each.tokens)
        heads = Number("a", shape.heads * shape.head_dim, "channels of all heads")
        window = Number("w", layer_time.mean_window(shape, work.seq_length), "earlier tokens looked at, mean")
        found = [
            self._part(
                "products",
                lambda layer: layer.products,
                "m * n * x * 2 * T * P / (t * f)",
                passes,
                self.T,
                Number("P", met, "parameters of a layer that a token meets, experts apart"),
                self.t,
                Number("f", at.products, "FLOP/s"),
            ),
            self._part(
                "attention",
                lambda layer: layer.attention,
                "m * n * x * 4 * T * a * w * d / (t * f)",
                Number("x", attended, "passes: forward, and backward two and a half times as long"),
                self.T,
                heads,
                window,
                Number("d", layer_time.head_slowness(shape.head_dim), "slowness of heads of that size"),
                self.t,
                Number("f", at.attention, "FLOP/s"),
            ),
            self._part(
                "experts",
                lambda layer: layer.experts,
                "m * n * x * F / (g * f)",
                passes,
                Number(
                    "F", self._mean(lambda forward: forward.experts), "FLOPs of a layer's experts, padded"
                ),
                Number("g", layer_time.GROUPED, "efficiency of grouped products over large ones"),
                Number("f", at.products, "FLOP/s"),
            ),
            self._part(
                "memory",
                lambda layer: layer.memory,
                "m * n * (x * M + o * (x * O + z * W + G)) / b",
                passes,
                Number("M", self._mean(lambda forward: forward.moved), "bytes of norms, activations, casts"),
                Number("o", layer_time.OPERANDS_EXPOSED, "share that products do not hide"),
                Number("O", self._mean(lambda forward: forward.operands), "bytes of products' operands"),
                Number("z", 2 if work.trains else 1, "readings"),
                Number("W", self._mean(lambda forward: forward.weights), "bytes of weights"),
                Number("G", self._gradients(), "bytes of adding to gradients"),
                Number("b", at.memory, "bytes/s of memory"),
            ),
            *self._links(),
        ]
        return [
            *found,
            *self._again(),
            self._simple("launches", lambda layer: layer.launch, "L", "s waiting"),
        ]

    def _gradients(self) -> float:
        each = layer_time.gradient_traffic(self.work) if self.work.trains else 0.0
        return each * self._mean(lambda forward: forward.parameters)

    def _links(self) -> list[Part]:
        """Traffic of the layers that shows."""
        layout, at = self.layout, self.each.at
        link = layer_time.bandwidth(at, layout.tp, self.domain)
        shown = self.gpu.tp_exposed if self.work.framework == "megatron" else 1.0
        ways = 2.0 if self.work.trains else 1.0
        return [
            self._part(
                "tensor parallelism",
                lambda layer: layer.tp,
                "m * n * x * s * B / b",
                Number("x", ways, "ways"),
                Number("s", shown, "share that shows"),
                Number("B", self._mean(lambda forward: forward.tp), "bytes of a layer, forward"),
                Number("b", link, "bytes/s"),
            ),
            self._simple("context parallelism", lambda layer: layer.cp, "C", "s of the ring that show"),
            self._part(
                "expert parallelism",
                lambda layer: layer.ep,
                "m * n * x * E",
                Number("x", ways, "ways"),
                Number("E", self._seconds_of(lambda layer: layer.ep) / ways, "s of sending tokens and back"),
            ),
        ]

    def _again(self) -> list[Part]:
        """What recomputation adds."""
        stage, layer, plain = self.stage, self.each.layer, self.each.plain
        whole = stage.again * layer.again + (stage.plain_again * plain.again if plain else 0.0)
        count = stage.again + stage.plain_again
        if not count:
            return [self._simple("recomputation", lambda layer: layer.recompute, "S", "s of what is named")]
        numbers = (
            self.m,
            Number("k", count, "layers of the slowest stage that are computed again"),
            Number("A", whole / count, "s of a layer's forward pass"),
        )
        return [Part("recomputation", self.turns * whole, "m * k * A", numbers)]

    def logits(self) -> Part:
        work, at, shape = self.work, self.each.at, self.work.shape
        seconds = self.each.head * (1 + self.mtp) * self.turns if self.is_last else 0.0
        moved = layer_time.LOSS_BYTES if work.trains else layer_time.LOSS_BYTES / 2
        numbers = (
            self.m,
            Number("y", 1 + self.mtp, "heads: one, and one for each further token that is predicted"),
            Number("x", 1 + layer_time.BACKWARD if work.trains else 1.0, "passes"),
            self.T,
            Number("V", padded_vocab(shape.vocab, self.layout.tp), "words"),
            self.t,
            Number("h", shape.hidden, "channels"),
            Number("f", at.wide, "FLOP/s"),
            Number("l", moved, "bytes of a logit and its loss"),
            Number("b", at.memory, "bytes/s of memory"),
        )
        return Part("logits", seconds, "m * y * T * V / t * (x * 2 * h / f + l / b)", numbers)

    def bubble(self) -> Part:
        slowest, everything = cost.stage_times(self.layout, self.each)
        seconds = (everything - slowest) / self.layout.vp
        numbers = (
            Number("S", everything, "s of a micro-batch through all stages"),
            Number("s", slowest, "s of the slowest"),
            Number("v", self.layout.vp, "pieces of a stage"),
        )
        return Part("pipeline bubble", seconds if self.layout.pp > 1 else 0.0, "(S - s) / v", numbers)

    def sends(self) -> Part:
        work, layout = self.work, self.layout
        seconds = self.turns * cost.sends(work, layout, self.each, self.domain) if layout.pp > 1 else 0.0
        numbers = (
            self.m,
            Number("s", cost.sends_shown(work, layout), "share that shows"),
            Number("B", cost.sent_between_stages(work, layout, self.each), "bytes"),
            Number("b", cost.between_stages(layout, self.each, self.domain), "bytes/s"),
        )
        return Part("sends between stages", seconds, "m * s * B / b", numbers)

    def update(self) -> list[Part]:
        """What comes once a step."""
        at, slowest = self.each.at, cost.stage_times(self.layout, self.each)[0]
        made = cost.update(self.work, self.layout, self.each, slowest, self.domain)
        found = []
        for i, (name, seconds, whole) in enumerate(
            (
                ("gradient reduction", made.reduce, made.reducing),
                ("weight gathering", made.gather, made.gathering),
            )
        ):
            numbers = (
                Number("R", whole, "s of all of it"),
                Number("B", made.first[i], "s of one bucket, which nothing hides"),
                Number("H", made.hidden[i], "s of computation beside it"),
            )
            found.append(Part(name, seconds, "B + max(0, R - B - H)", numbers))
        moved = (Number("B", made.moved, "bytes of gradients and states"), Number("b", at.memory, "bytes/s"))
        sent = (
            Number("B", made.offloaded, "bytes over the host's link"),
            Number("b", at.host, "bytes/s"),
            Number("A", made.on_host, "bytes that Adam on the host moves"),
            Number("c", cost.HOST_ADAM, "bytes/s"),
        )
        found.append(Part("optimizer", made.optimizer, "B / b", moved))
        found.append(Part("optimizer on the host", made.host, "B / b + A / c", sent))
        return found

    # --- sums over the layers of the slowest stage -----------------------------------------------------

    def _seconds_of(self, of: Callable[[LayerTime], float]) -> float:
        """The mean of a term over the stage's layers."""
        count, plain = self.stage.layers + self.mtp, self.each.plain
        total = count * of(self.each.layer) + (self.stage.plain * of(plain) if plain else 0.0)
        return total / max(1, self.n.value)

    def _mean(self, of: Callable[[Forward], float]) -> float:
        count = self.stage.layers + self.mtp
        total = count * of(self.forward) + (self.stage.plain * of(self.plain) if self.plain else 0.0)
        return total / max(1, self.n.value)

    def _part(self, name: str, of: Callable[[LayerTime], float], formula: str, *numbers: Number) -> Part:
        seconds = self.turns * self.n.value * self._seconds_of(of)
        return Part(name, seconds, formula, (self.m, self.n, *numbers))

    def _simple(self, name: str, of: Callable[[LayerTime], float], symbol: str, meaning: str) -> Part:
        return self._part(name, of, f"m * n * {symbol}", Number(symbol, self._seconds_of(of), meaning))


def slowest_stage(layout: Layout, each: MicroBatch) -> tuple[Stage, bool]:
    """The stage that the others wait for, and whether it is the last one."""
    every = cost.stages_of(each.layers, layout.stage_layers, layout.pp, layout.vp, each.dense, each.again)
    times = [cost.stage_seconds(stage, each) for stage in every]
    times[-1] += cost.last_seconds(each)
    slowest = max(range(len(every)), key=lambda r: (times[r], r))
    return every[slowest], slowest == len(every) - 1
