"""The layouts of the published alignment jobs: all feasible on 80 GB, none faster than the planner's own.

A row is a job as its tutorial starts it: nodes of 8 GPUs, sizes, micro-batch, batch. Where it says how
activations are recomputed, the row does; else the search says. Rows of comparisons hold two texts, and a
micro-batch counts such pairs, so that a pair is never parted.
"""

from dataclasses import dataclass

import pytest

from specc import models
from specc.plan import Layout
from specc.planner import hardware, layouts, rules
from specc.planner.hardware import Gpu
from specc.planner.layouts import search
from specc.planner.memory import Workload
from specc.planner.rules import Case
from specc.planner.space import Pins


@dataclass(frozen=True)
class Job:
    name: str
    model: str
    nodes: int
    tp: int
    pp: int
    micro_batch: int
    batch: int
    head: str = "language"
    texts: int = 1
    recompute: str | None = None
    sequence_parallel: bool = True
    seq_length: int = 4096

    @property
    def work(self) -> Workload:
        shape = models.catalog()[self.model].shape
        return Workload(shape, self.seq_length, self.batch, head=self.head, texts=self.texts)

    @property
    def pins(self) -> Pins:
        return Pins(
            tp=self.tp,
            pp=self.pp,
            vp=1,
            cp=1,
            micro_batch=self.micro_batch,
            recompute=self.recompute,
        )


JOBS = (
    Job("regression 13b", "llama2-13b", 32, 4, 1, 2, 512, "attributes", recompute="selective"),
    Job("regression 70b", "llama3-70b", 8, 8, 2, 2, 128, "attributes", 1, "full", False),
    Job("preference 1", "llama3.1-70b", 8, 8, 2, 2, 128, "attributes", 1, "full", False),
    Job("preference 2, scaled pairs", "llama3.1-70b", 4, 8, 4, 2, 128, "scalar", 2, "full", False),
    Job("attribute-conditioned sft", "llama3-70b", 32, 8, 2, 1, 128),
    Job("pairs on 1 node", "gpt-2b-001", 1, 1, 1, 1, 512, "scalar", 2),
    Job("pairs on 4 nodes", "gpt-2b-001", 4, 1, 1, 1, 512, "scalar", 2),
    Job("ppo actor", "gpt-2b-001", 1, 1, 1, 1, 64, seq_length=1024),
    Job("ppo critic", "gpt-2b-001", 1, 1, 1, 1, 64, "scalar", seq_length=1024),
    Job("self-rewarding on 1 node", "gpt-2b-001", 1, 1, 1, 1, 64),
    Job("self-rewarding on 4 nodes", "gpt-2b-001", 4, 1, 1, 1, 64),
)
GPUS = ("a100-80gb", "h100-80gb")


def gpu(name: str) -> Gpu:
    found = hardware.gpu(name)
    assert found is not None
    return found


@pytest.mark.parametrize("card", GPUS)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_published_layout_is_legal_and_fits_80_gb(job: Job, card: str):
    best = search(job.work, gpu(card), job.nodes, 8, job.pins).best
    assert best is not None
    layout = best.case.layout
    assert (layout.tp, layout.pp, layout.dp) == (job.tp, job.pp, job.nodes * 8 // (job.tp * job.pp))
    if not job.sequence_parallel:  # as it was started, without sequence parallelism
        plain = Layout(job.tp, job.pp, dp=layout.dp, sequence_parallel=False)
        case = Case(job.work, gpu(card), job.nodes, 8, plain, job.micro_batch, job.recompute or "none")
        assert rules.broken(case) == []
        assert layouts.judged(case).oom_probability < 0.5


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_the_planners_own_layout_is_at_least_as_fast(job: Job):
    published = search(job.work, gpu("h100-80gb"), job.nodes, 8, job.pins).best
    own = search(job.work, gpu("h100-80gb"), job.nodes, 8, Pins()).best
    assert published is not None
    assert own is not None
    assert own.seconds <= published.seconds


@pytest.mark.parametrize("dp", [1, 2, 8])
def test_pairs_stay_together_at_any_data_parallel_size(dp: int):
    """A micro-batch of one pair is legal however many ranks share the batch, and takes two texts' memory."""
    shape = models.catalog()["gpt-2b-001"].shape
    pairs, texts = (Workload(shape, 4096, 8, head="scalar", texts=count) for count in (2, 1))
    case = Case(pairs, gpu("h100-80gb"), 1, dp, Layout(dp=dp), 1)
    assert rules.broken(case) == []
    alone = Case(texts, gpu("h100-80gb"), 1, dp, Layout(dp=dp), 2 if dp < 8 else 1)
    if dp < 8:
        assert layouts.judged(case).total_gib == pytest.approx(layouts.judged(alone).total_gib)
    else:
        assert layouts.judged(case).total_gib > layouts.judged(alone).total_gib


@pytest.mark.parametrize(
    ("model", "nodes", "head", "batch"),
    [
        *(("llama3-70b", nodes, "language", 128) for nodes in (8, 16, 32, 64)),
        *(("llama3-70b", nodes, "scalar", 128) for nodes in (4, 8, 16, 32)),
        ("llama3.1-405b", 84, "language", 128),
        ("llama3.1-405b", 42, "scalar", 128),
    ],
)
def test_every_share_of_the_published_ppo_jobs_can_be_trained_on(model, nodes, head, batch):
    given = Workload(models.catalog()[model].shape, 4096, batch, head=head)
    assert search(given, gpu("h100-80gb"), nodes, 8, Pins()).best is not None


@pytest.mark.parametrize(("model", "tp"), [("llama2-13b", 4), ("llama3-70b", 8)])
def test_the_published_servers_fit_one_node(model: str, tp: int):
    given = Workload(models.catalog()[model].shape, 4096, 8, trains=False)
    assert search(given, gpu("a100-80gb"), 1, 8, Pins(tp=tp, pp=1)).best is not None
