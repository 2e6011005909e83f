"""A run that comes back from a checkpoint goes on as if it had not stopped."""

import json

import pytest
import saves
import toys

from specc.plan import Layout

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

SAME_LAYOUT = {
    "TP2": toys.role(Layout(tp=2, sequence_parallel=True), distributed_optimizer=True),
    "DP2": toys.role(Layout(dp=2), distributed_optimizer=True),
    "DP2-replicated": toys.role(Layout(dp=2)),
    "DP2-bf16": toys.role(Layout(dp=2), distributed_optimizer=True, precision="bf16"),
    "PP2-VP2": toys.role(Layout(pp=2, vp=2), distributed_optimizer=True),
}
OTHER_LAYOUTS = {
    "alone": Layout(),
    "TP2": Layout(tp=2, sequence_parallel=True),
    "PP2": Layout(pp=2),
    "PP2-uneven": Layout(pp=2, stage_layers=(1, 3)),
    "DP2": Layout(dp=2),
    "TP2-PP2": Layout(tp=2, pp=2),
}


@pytest.mark.parametrize("role", SAME_LAYOUT.values(), ids=SAME_LAYOUT)
def test_resuming_is_bit_equal_to_not_stopping(world, tmp_path, role):
    ranks = role.layout.world_size
    before = world(ranks, saves.trained_and_saved, role, tmp_path)
    after = world(ranks, saves.resumed, role, tmp_path)
    for was, is_ in zip(before, after, strict=True):
        assert is_["given"] == saves.STATE
        assert is_["step"] == 3
        assert is_["state"] == was["state"]
        assert is_["draws"] == was["draws"]
        assert is_["series"] == was["series"]


@pytest.fixture(scope="module")
def run_at_tp2(world, tmp_path_factory):
    """A run at TP2 with the distributed optimizer: its checkpoint and how it went on."""
    folder = tmp_path_factory.mktemp("tp2")
    role = toys.role(Layout(tp=2), distributed_optimizer=True)
    return folder, world(2, saves.trained_and_saved, role, folder)[0]["series"]


@pytest.mark.parametrize("layout", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
def test_another_layout_goes_on_with_the_same_losses(world, run_at_tp2, layout):
    folder, expected = run_at_tp2
    role = toys.role(layout, distributed_optimizer=True)
    for rank in world(layout.world_size, saves.resumed, role, folder):
        for (loss, norm), (wanted_loss, wanted_norm) in zip(rank["series"], expected, strict=True):
            assert loss == pytest.approx(wanted_loss, rel=1e-5)
            assert norm == pytest.approx(wanted_norm, rel=1e-4)


def test_another_layout_draws_the_same_numbers_every_time(world, run_at_tp2):
    folder, _ = run_at_tp2
    role = toys.role(Layout(dp=2), distributed_optimizer=True)
    first, again = (world(2, saves.resumed, role, folder) for _ in range(2))
    assert [rank["draws"] for rank in first] == [rank["draws"] for rank in again]


@pytest.mark.parametrize("distributed", [True, False], ids=["distributed", "replicated"])
def test_each_parameter_counts_its_own_steps_after_a_load(world, tmp_path, distributed):
    role = toys.role(distributed_optimizer=distributed)
    world(1, saves.saved_at, role, tmp_path, [2])
    assert world(1, counts_after_a_load, role, tmp_path) == [({2.0}, True)]


def counts_after_a_load(role, folder):
    """The counts of steps in the optimizer, and whether no two parameters share one."""
    from runtime import checkpoint

    engine = saves.opened(role)
    checkpoint.load(folder, 2, engine)
    [part] = engine.optimizer.chained_optimizers
    counts = [state["step"] for state in part.optimizer.state.values()]
    return {count.item() for count in counts}, len({count.data_ptr() for count in counts}) == len(counts)


def test_saving_before_the_first_step_can_be_resumed(world, tmp_path):
    for name, distributed in (("distributed", True), ("replicated", False)):
        role = toys.role(distributed_optimizer=distributed)
        [before] = world(1, saves.trained_and_saved, role, tmp_path / name, 0, 2)
        [after] = world(1, saves.resumed, role, tmp_path / name, 2)
        assert after["series"] == before["series"]


def test_experts_come_back_under_another_layout(world, tmp_path):
    shape = toys.shape(experts=4, experts_per_token=2, expert_ffn=32)
    spread = toys.role(Layout(dp=2, ep=2), shape, distributed_optimizer=True)
    before = world(2, saves.trained_and_saved, spread, tmp_path)
    same = world(2, saves.resumed, spread, tmp_path)
    assert [rank["series"] for rank in same] == [rank["series"] for rank in before]
    [alone] = world(1, saves.resumed, toys.role(Layout(), shape, distributed_optimizer=True), tmp_path)
    assert [loss for loss, _ in alone["series"]] == pytest.approx(
        [loss for loss, _ in before[0]["series"]], rel=1e-5
    )


def test_an_interleaved_pipeline_that_shares_its_embedding_comes_back_as_tensor_parallel(world, tmp_path):
    shape = toys.shape(tied=True)
    saved = toys.role(Layout(pp=2, vp=2), shape, distributed_optimizer=True)
    before = world(2, saves.trained_and_saved, saved, tmp_path)[0]
    after = world(2, saves.resumed, toys.role(Layout(tp=2), shape, distributed_optimizer=True), tmp_path)[0]
    assert [loss for loss, _ in after["series"]] == pytest.approx(
        [loss for loss, _ in before["series"]], rel=1e-5
    )


def test_the_manifest_says_what_the_checkpoint_is(run_at_tp2):
    folder, _ = run_at_tp2
    described = json.loads((folder / "step-3" / "MANIFEST.json").read_text())
    assert described["step"] == 3
    assert described["model"]["shape"]["hidden"] == toys.SHAPE.hidden
    assert described["model"]["head"] == "language"
    assert described["model"]["tokenizer"] == "builtin:bytes"
    assert described["layout"]["tp"] == 2
    assert described["optimizer"] == "distributed"
    files = {str(p.relative_to(folder / "step-3")) for p in (folder / "step-3").rglob("*") if p.is_file()}
    assert set(described["files"]) == files - {"MANIFEST.json"}


def test_megatrons_own_reader_reads_it(world, run_at_tp2):
    folder, _ = run_at_tp2
    [shapes] = world(1, shapes_by_megatron, folder / "step-3")
    assert shapes["decoder.layers.mlp.linear_fc2.weight"] == (4, 64, 128)
    assert shapes["optimizer.state.exp_avg.decoder.layers.mlp.linear_fc2.weight"] == (4, 64, 128)


def shapes_by_megatron(folder):
    """The tensors of a checkpoint as Megatron's own loader lists them."""
    import torch.distributed as dist
    from megatron.core.dist_checkpointing import load_plain_tensors

    dist.init_process_group("gloo")
    loaded = load_plain_tensors(str(folder))
    return {name: tuple(value.shape) for name, value in loaded.items() if hasattr(value, "shape")}


def test_weights_alone_are_handed_to_a_model_with_a_head_of_numbers(world, tmp_path):
    [saved] = world(1, saves.weights_of, toys.role(), tmp_path)
    [taken] = world(1, saves.chosen_weights, toys.role(head="scalar"), tmp_path, 2)
    head = "output_layer.weight"
    assert {n: h for n, h in taken.items() if n != head} == {n: h for n, h in saved.items() if n != head}
    assert taken[head] != saved[head]


def test_weights_alone_are_handed_to_the_same_model(world, tmp_path):
    [saved] = world(1, saves.weights_of, toys.role(), tmp_path)
    [taken] = world(1, saves.chosen_weights, toys.role(distributed_optimizer=True), tmp_path, 2)
    assert taken == saved


def test_a_head_of_numbers_comes_back(world, tmp_path):
    assert world(1, head_kept, tmp_path) == [True]


def head_kept(folder):
    """Does a scalar head of a model at TP1 come back from a checkpoint, bit by bit?"""
    from runtime import checkpoint

    engine = saves.opened(toys.role(head="scalar"))
    checkpoint.save(folder, 1, engine, {})
    kept = saves.fingerprint(engine)
    engine.chunks[0].output_layer.weight.data.zero_()
    checkpoint.load(folder, 1, engine)
    return saves.fingerprint(engine) == kept


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (
            toys.role(shape=toys.shape(hidden=32, ffn=64)),
            "has hidden 64 instead of 32; ffn 128 instead of 64",
        ),
        (toys.role(head="scalar"), "has a language head instead of a scalar one"),
        (
            toys.role(distributed_optimizer=False),
            "holds a distributed optimizer, but the plan has a replicated",
        ),
    ],
    ids=["shape", "head", "optimizer"],
)
def test_another_model_is_refused_by_name(world, run_at_tp2, role, said):
    folder, _ = run_at_tp2
    [(code, message)] = world(1, saves.problem_of_loading, role, folder, 3)
    assert code == "R022"
    assert "`step-3`" in message
    assert said in message


def test_a_head_of_numbers_does_not_become_a_language_model(world, tmp_path):
    [kept] = world(1, head_kept, tmp_path)
    assert kept
    [(code, message)] = world(1, saves.problem_of_loading, toys.role(), tmp_path, 1, True)
    assert code == "R022"
    assert "has a scalar head instead of a language one" in message
