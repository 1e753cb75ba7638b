"""What `make check-cuda` reads out of the compiler's report, and the table that it holds it against."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).with_name("check_cuda.py")
REPORT = """\
ptxas info    : Compiling entry function '_ZN4sage12_GLOBAL__N_118latent_step_kernelILb1ELb0ENS_4HalfEEEvNS_10DeviceRowsIT1_EENS_4LoopENS_5WidthE' for 'sm_87'
ptxas info    : Function properties for _ZN4sage
    304 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 304 bytes cumulative stack size, 272 bytes smem, 576 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN4sage12begin_kernelENS_4LoopENS_5WidthE' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 504 bytes cmem[0]
"""  # noqa: E501


@pytest.fixture
def check_cuda():
    spec = importlib.util.spec_from_file_location("check_cuda", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_registers_shared_memory_and_spills_are_read_from_the_report(check_cuda):
    noisy, begin = check_cuda.parse_usage(REPORT)
    assert tuple(noisy) == ("latent_step<noisy, not whole, half>", "sm_87", 80, 272, 12)
    assert tuple(begin) == ("begin", "sm_90", 64, 0, 0)


def test_the_documented_table_names_every_kernel_for_every_chip(check_cuda):
    version, table = check_cuda.read_table(check_cuda.TABLE.read_text())
    assert version == "13.0"
    assert check_cuda.read_table(f"nvcc 13.0\n{check_cuda.as_table(table)}\n")[1] == table
    text = "".join(path.read_text() for path in check_cuda.KERNELS)
    kernels = {kernel.split("<")[0] for kernel, _ in table}
    assert {chip for _, chip in table} == set(check_cuda.CHIPS)
    assert all(f"{kernel}_kernel(" in text for kernel in kernels)
    assert len(table) == 2 * text.count("__global__ void") + 14  # latent_step has eight forms
