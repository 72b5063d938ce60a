"""Runs the benchmark; asserts only what does not depend on how busy the machine is: the same answers."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.benchmark
@pytest.mark.model
def test_packed_and_plain_side_by_side():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("needs a CPU that multiplies bfloat16: on others nothing is packed")
    main = runpy.run_path(str(Path(__file__).with_name("bench_packed.py")))["main"]
    assert len(main("hf/smollm2-135m-instruct", 1)) == 3
