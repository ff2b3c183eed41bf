"""Plans of networks that make images out of random numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_deploy import Engine
from sr_deploy.bundle import plan_store
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Latent, Variant
from sr_deploy.bundle.plan_store import PlanRecord, Shapes
from sr_export import cli
from tests.fakes.tensorrt import VERSIONS
from tests.sr_deploy import networks
from tests.sr_export.generators import Dcgan, trained
from tests.sr_export.trt.conftest import Workshop

Open = Callable[[str], Workshop]

SHAPES = Shapes((1, 1, 5), (4, 1, 5), (4, 1, 5))


@pytest.fixture
def generators(workshop: Open, tmp_path: Path) -> Open:
    """Makes a machine that has a generator."""
    latent = Latent(size=5, height=6, width=8)
    folder = tmp_path / "generator.srd"
    networks.bundle(folder, networks.generator, ("rgb24",), scale=1, latent=latent)

    def opened(version: str) -> Workshop:
        shop = workshop(version)
        shop.bundle = Bundle.open(folder)
        return shop

    return opened


def built(shop: Workshop) -> PlanRecord:
    return shop.building().build(exact(shop), SHAPES)


def exact(shop: Workshop) -> Variant:
    found = shop.bundle.variant("fp32", "rgb24")
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_generators(
    generators: Open, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = generators(version)

    record = built(shop)

    assert record.plan is not None, record.refused
    assert record.psnr is None or record.psnr > 60
    expected = "FP32 in onnxruntime on a CPU, random numbers of 4x1x5, 1x1x5"
    assert record.compared == expected
    assert shop.tensorrt.builds[0].profiles[0].shapes == {"input": [[1, 5], [4, 5], [4, 5]]}
    monkeypatch.setattr("sr_deploy.tiling.native.kernels", lambda: None)
    noise = np.random.default_rng(0).standard_normal((9, 5), np.float32)
    folder = shop.bundle.folder
    with (
        Engine(folder, backend="tensorrt", precision="fp32", build="never") as engine,
        Engine(folder, backend="onnxruntime") as other,
    ):
        assert np.abs(engine.generate(noise).astype(int) - other.generate(noise)).max() <= 1


@pytest.fixture(scope="session")
def dcgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sr-export` makes of a checkpoint, INT8 however bad it is."""
    path = tmp_path_factory.mktemp("dcgan") / "netG.pth"
    torch.save(trained(Dcgan(), 10).state_dict(), path)
    assert cli.main([str(path), "--min-psnr", "int8=10"]) == 0
    return path.with_suffix(".srd")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_a_dcgan_is_built_in_all_precisions_of_its_bundle(
    workshop: Open, dcgan: Path, tmp_path: Path, version: str
) -> None:
    shop = workshop(version)
    shop.bundle = Bundle.open(shutil.copytree(dcgan, tmp_path / "dcgan.srd"))
    offered = {each.precision: each for each in shop.bundle.manifest.variants}
    assert {"fp32", "fp16", "int8"} <= offered.keys()
    shapes = Shapes((1, 1, 10), (16, 1, 10), (16, 1, 10))
    for precision in ("fp32", "fp16", "int8"):
        record = shop.building().build(offered[precision], shapes)
        assert record.plan is not None, record.refused
        assert record.computed == "asked", record.refused


@pytest.mark.parametrize(
    ("fault", "reason"), [("black", "one color"), ("noise", "dB against FP32")]
)
def test_wrong_images_are_rejected(generators: Open, fault: str, reason: str) -> None:
    shop = generators("10.3.0")
    shop.tensorrt.faults = [fault]

    record = built(shop)

    assert record.plan is None
    assert reason in record.refused[0]
    assert not list((shop.bundle.folder / plan_store.FOLDER).glob("*.plan"))
