"""Portable plans of networks of every kind, built by NVIDIA's real library without a GPU."""

from __future__ import annotations

import pytest

from architectures import cells, rtx, rtx_page
from sr_deploy import backends

# Convolutions, transposed and grouped ones, attention in windows and over channels, padding.
SPREAD = (
    *("Compact x2", "ESRGAN x2", "SPAN x4", "RCAN x2", "SAFMN x4", "SwinIR x2", "PLKSR x2"),
    *("FSRCNN x3", "SRResNet x4", "NAFNet x1"),
)


@pytest.mark.skipif(
    "tensorrt_rtx" not in backends.available(), reason="needs TensorRT for RTX: sr-deploy[rtx]"
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize("key", SPREAD)
def test_networks_of_every_kind_are_built(key: str) -> None:
    cell = next(each for each in cells.small() if each.key == key)

    found = rtx.build_plans(cell, ("FP16",))

    (plan,) = found["plans"].values()
    assert "error" not in plan, plan
    assert plan["bytes"] > 100_000
    assert plan["memory"] > 0


def test_the_page_matches_the_record() -> None:
    expected = rtx_page.text(rtx_page.read(rtx_page.RECORD))
    written = rtx_page.PAGE.read_text(encoding="utf-8")
    assert written == expected, "run benchmarks/architectures --rtx --page"


def test_the_record_is_of_known_networks() -> None:
    assert set(rtx_page.read(rtx_page.RECORD)) <= {each.key for each in cells.small()}


def test_failures_are_counted_and_listed() -> None:
    text = rtx_page.text(
        {
            "A x2": {
                "library": "1.7",
                "plans": {
                    "FP32": {
                        "shape": (1, 64, 96),
                        "seconds": 1.25,
                        "bytes": 2_500_000,
                        "memory": 3 << 29,
                    },
                    "FP16": {"error": "TopK | of 3840"},
                },
            },
            "B x4": {"error": "cannot be exported"},
        }
    )
    assert "1 of 2 plans" in text
    assert "| A x2 | 64x96 | 1.2 s, 2.5 MB, 1.5 GiB | no | - | - | - |" in text
    assert "| A x2 | FP16 | TopK / of 3840 |" in text
    assert "| B x4 | export | cannot be exported |" in text
