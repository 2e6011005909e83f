"""The shim answers for CUDA, and only where it is asked."""

import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def torch():
    import torch

    from runtime import cpu

    cpu.install()
    return torch


def test_a_cuda_device_means_the_cpu(torch):
    assert torch.zeros(2, device="cuda").device.type == "cpu"
    assert torch.tensor([1.0], device="cuda:0").device.type == "cpu"
    assert torch.empty(2, device=torch.device("cuda")).device.type == "cpu"
    assert torch.empty(2, device=torch.cuda.current_device()).device.type == "cpu"
    assert torch.ones(2).to("cuda").device.type == "cpu"
    assert torch.ones(2).cuda().device.type == "cpu"


def test_other_arguments_are_left_alone(torch):
    assert torch.zeros(2, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert torch.zeros(2, device="meta").is_meta
    assert torch.ones(2).to(torch.float64).dtype == torch.float64


def test_tensors_have_the_type_names_megatron_compares_with(torch):
    assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
    assert torch.zeros(1, dtype=torch.bfloat16).type() == "torch.cuda.BFloat16Tensor"
    assert torch.zeros(1).type(torch.float64).dtype == torch.float64


def test_the_cuda_random_state_is_the_cpus(torch):
    state = torch.cuda.get_rng_state()
    first = torch.rand(3)
    torch.cuda.set_rng_state(state)
    assert torch.rand(3).equal(first)


def test_installing_twice_changes_nothing(torch):
    from runtime import cpu

    before = torch.zeros
    cpu.install()
    assert torch.zeros is before


def test_torch_still_pickles_and_copies_tensors(torch):
    import copy
    import pickle

    tensor = torch.arange(3)
    assert pickle.loads(pickle.dumps(tensor)).equal(tensor)  # noqa: S301
    assert copy.deepcopy(tensor).equal(tensor)
