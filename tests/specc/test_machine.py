"""What this machine has, as nvidia-smi tells it."""

import pytest

from specc import machine


def test_each_line_of_nvidia_smi_is_one_gpu():
    said = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559\n"
    found = machine.read_gpus(said)
    assert [gpu.name for gpu in found] == ["NVIDIA H100 80GB HBM3"] * 2
    assert round(found[0].memory_gib, 1) == 79.6


def test_a_driver_that_does_not_answer_means_no_gpu():
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    assert machine.read_gpus(said) == []


def test_a_machine_without_the_tool_has_no_gpu():
    assert machine.gpus("no-such-command") == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, "abc"),
        ("", ""),
        ("2", "c"),
        ("2, 0", "ca"),
        ("1,-1,0", "b"),
        ("1,7", "b"),
        ("GPU-8932f937,GPU-1", "aa"),
        ("NoDevFiles", ""),
    ],
)
def test_only_gpus_that_a_process_sees_count(said, kept):
    found = [machine.Gpu(name, 80.0) for name in "abc"]
    assert "".join(gpu.name for gpu in machine.visible(found, said)) == kept
