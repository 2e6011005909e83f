"""What this machine has, as nvidia-smi tells it."""

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
