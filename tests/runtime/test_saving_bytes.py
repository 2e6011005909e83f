"""What the planner says a save and a load take beside the state, against all storages that live meanwhile.

On a CPU device and host are one memory, so pieces on their way over the device are made small. The counter
sees every operation of torch, and which storages are alive after it.
"""

import pytest
import toys

from specc.plan import Layout
from specc.planner import saving
from specc.planner.shapes import stage_parameters
from specc.planner.workload import Workload

pytestmark = pytest.mark.torch


def counter():
    """A dispatch mode that knows the most bytes of new storages that were alive at once."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.alive, self.most = {}, 0

        def __torch_dispatch__(self, operation, types, arguments=(), named=None):
            import torch

            made = operation(*arguments, **(named or {}))
            seen = (arguments, named or {})
            given = {t.untyped_storage()._cdata for t in tree_leaves(seen) if isinstance(t, torch.Tensor)}
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage._cdata not in given:
                        self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.alive = {key: each for key, each in self.alive.items() if not each[0].expired()}
            self.most = max(self.most, sum(size for _, size in self.alive.values()))
            return made

    return Counter()


def saved_and_loaded(roles, folder):
    """For each role this rank's stage, and the most bytes that its save and its load took."""
    from runtime import cpu

    cpu.install()
    import saves

    from runtime import checkpoint, gathering, parallel

    gathering.PIECE = 1 << 14  # next to nothing, as it is beside a real model
    found = []
    for number, role in enumerate(roles):
        engine = saves.opened(role)
        saves.steps_done(engine, 0, 1)
        with counter() as save:
            checkpoint.save(folder / str(number), 1, engine, saves.STATE)
        with counter() as load:
            checkpoint.load(folder / str(number), 1, engine)
        found.append((engine.parallel.pp_rank, save.most, load.most))
        parallel.parallel_state.destroy_model_parallel()
    return found


SHAPE = toys.shape(hidden=128, ffn=256, heads=4, kv_groups=2, head_dim=32, vocab=500)
EXPERTS = toys.shape(hidden=128, ffn=256, vocab=500, experts=4, experts_per_token=2, expert_ffn=96)
CASES = {
    1: [(SHAPE, Layout(), "bf16"), (SHAPE, Layout(), "fp32"), (EXPERTS, Layout(), "bf16")],
    2: [
        (SHAPE, Layout(dp=2), "bf16"),
        (SHAPE, Layout(dp=2), "fp32"),
        (SHAPE, Layout(tp=2, sequence_parallel=True), "bf16"),
        (SHAPE, Layout(pp=2), "bf16"),
        (EXPERTS, Layout(dp=2, ep=2), "bf16"),
    ],
}


@pytest.mark.parametrize("processes", CASES)
def test_saving_and_loading_take_what_is_predicted(world, tmp_path, processes):
    roles = [
        toys.role(layout, shape, precision=precision, distributed_optimizer=True)
        for shape, layout, precision in CASES[processes]
    ]
    ranks = world(processes, saved_and_loaded, roles, tmp_path)
    for number, (shape, layout, precision) in enumerate(CASES[processes]):
        work = Workload(shape, 32, 8, precision=precision, implementation="local")
        for stage, save, load in (rank[number] for rank in ranks):
            room = saving.saving(work, layout, stage), saving.loading(work, layout, stage)
            assert 0.99 < save / room[0].host < 1.2  # the writer copies a few tensors more
            assert load == pytest.approx(room[1].host + room[1].device, rel=0.01)
            held = stage_parameters(shape, layout, stage)
            assert saving.quickly(work, layout, held).host == pytest.approx(room[0].host, rel=0.02)


def gathered_both_ways(role):
    """The most that Megatron's own way and ours differ, and how many elements there are."""
    from runtime import cpu

    cpu.install()
    import saves

    from runtime import gathering

    gathering.PIECE = 5000  # no part of a bucket is a multiple of it
    engine = saves.opened(role)
    saves.steps_done(engine, 0, 2)
    most, count = 0.0, 0
    for part in engine._optimizers():
        theirs = part.get_parameter_state_dp_zero(use_gloo_comm=False, return_on_all_ranks=True)
        ours = gathering.whole_state(part, empty=False)
        assert theirs.keys() == ours.keys()
        for index, by_dtype in theirs.items():
            if index == "buckets_coalesced":
                continue
            for dtype, tensors in by_dtype.items():
                assert tensors["numel_unpadded"] == ours[index][dtype]["numel_unpadded"]
                for key in gathering.KEYS:
                    difference = (tensors[key] - ours[index][dtype][key]).abs()
                    most, count = max(most, float(difference.max())), count + difference.numel()
    return most, count


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout(dp=3), toys.SHAPE),
        (Layout(pp=2, dp=2), toys.shape(tied=True)),  # a bucket of its own for the embedding
        (Layout(dp=4, ep=2), toys.shape(experts=4, experts_per_token=2, expert_ffn=32)),
    ],
    ids=["DP3", "PP2-DP2", "DP4-EP2"],
)
def test_what_is_gathered_in_pieces_is_what_megatron_gathers_at_once(world, layout, shape):
    role = toys.role(layout, shape, precision="bf16", distributed_optimizer=True, global_batch=12)
    for most, count in world(layout.world_size, gathered_both_ways, role):
        assert most == 0.0
        assert count > 10_000
