"""Networks of public repositories, rebuilt from their weights, against the origin's own code.

Each file in `origins` names a repository, its commit and a small network, and lists the network's
tensors in the order of its state dict. All weights and the image are drawn from numpy's generators
with the seeds 0 and 1, as `_weights` does. `output` is what the origin's code computes from them:
every n-th value as little-endian float16, in base64.
"""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import InvalidInputError
from sr_export import photos, pipeline
from sr_export.models.network import Network
from sr_export.models.ranges import Ranges
from sr_export.models.recognize import recognize
from sr_export.options import Options

_ORIGINS = Path(__file__).with_name("origins")
# The architecture by which each is recognized, its scale, its grid, and the settings to give.
CASES: dict[str, tuple[str, int, int, str]] = {
    "artcnn": ("ArtCNN", 2, 1, ""),
    "carn": ("CARN", 3, 1, ""),
    "carn_m": ("CARN", 4, 1, ""),
    "imdn": ("IMDN", 3, 1, ""),
    "imdn_as": ("IMDN", 1, 4, ""),
    "imdn_kair": ("IMDN", 2, 1, ""),
    "imdn_rtc": ("IMDN", 2, 1, ""),
    "imdn_rte": ("IMDN", 2, 2, ""),
    "lapsrn": ("LapSRN", 4, 1, ""),
    "mosrv2_dysample": ("MoSRv2", 2, 1, ""),
    "mosrv2_nearest_conv": ("MoSRv2", 4, 1, ""),
    "mosrv2_pa_up": ("MoSRv2", 4, 1, ""),
    "mosrv2_pixelshuffle": ("MoSRv2", 3, 1, ""),
    "mosrv2_pixelshuffledirect": ("MoSRv2", 2, 2, ""),
    "mosrv2_transpose_conv": ("MoSRv2", 4, 1, ""),
    "pan": ("PAN", 4, 1, ""),
    "pan_x2": ("PAN", 2, 1, ""),
    "rfdn": ("RFDN", 4, 1, ""),
    "rlfn": ("RLFN", 2, 1, ""),
    "rlfn_ntire": ("RLFN", 4, 1, ""),
}


def _record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_ORIGINS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _weights(record: dict[str, Any]) -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(0)
    found = {}
    for name, shape in record["tensors"].items():
        value = generator.standard_normal(shape)
        if len(shape) > 1:
            value = value * record.get("gain", 1) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = 1 + 0.2 * np.abs(value)
        elif name.endswith(("weight", "scale", "alpha")):
            value = 1 + 0.2 * value
        else:
            value = 0.1 * value
        found[name] = torch.from_numpy(np.asarray(value, np.float32))
    for name, values in record.get("constants", {}).items():
        found[name] = torch.tensor(values)
    return found


def _image(record: dict[str, Any]) -> torch.Tensor:
    shape = (1, record["channels"], *record["size"])
    return torch.from_numpy(np.random.default_rng(1).random(shape, np.float32))


def _run(network: Network, image: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: NDArray[np.float32] = network.module(image).numpy()
    return output


@pytest.mark.parametrize("name", CASES)
def test_the_origins_output_is_reproduced(name: str) -> None:
    architecture, scale, grid, settings = CASES[name]
    record = _record(name)
    network = recognize([_weights(record)], f"{architecture} {settings}" if settings else None)
    assert network.architecture.split()[0] == architecture
    assert (network.scale, network.grid, network.channels) == (scale, grid, record["channels"])
    output = _run(network, _image(record))[0]
    assert list(output.shape) == record["shape"]
    expected = np.frombuffer(base64.b64decode(record["output"]), "<f2").astype(np.float32)
    found = output.reshape(-1)[:: record["every"]]
    # The precision of float16, and the order of summation in another version of PyTorch.
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    assert expected.std() > 0.05


def test_pixels_are_unshuffled_before_esrgan_as_in_spandrel() -> None:
    """Real-ESRGAN's x2 reduces the image first; spandrel's code is the reference."""
    torch.manual_seed(0)
    # Importing it at the top would come before torchvision is checked.
    esrgan = importlib.import_module("spandrel.architectures.ESRGAN").ESRGAN
    network = esrgan(in_nc=12, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2).eval()
    weights = dict(network.state_dict())
    assert recognize([weights]).architecture == "ESRGAN"
    found = recognize([weights], "RRDBNet")
    assert (found.scale, found.grid, found.channels) == (2, 2, 3)
    image = torch.rand(1, 3, 20, 22)
    with torch.inference_mode():
        expected = network(image)
    assert np.abs(_run(found, image) - expected.numpy()).max() <= 1e-5


@pytest.mark.parametrize("name", ["carn_m", "lapsrn"])
def test_a_file_with_several_scales_gives_each(name: str) -> None:
    record = _record(name)
    architecture, assumed, _, _ = CASES[name]
    weights, image = _weights(record), _image(record)
    default = recognize([weights])
    assert f"scale={assumed}" in " ".join(default.assumed)
    chosen = recognize([weights], f"{architecture} scale=2")
    assert (chosen.scale, chosen.assumed) == (2, ())
    assert _run(chosen, image).shape[2] == 2 * record["size"][0]


def test_photos_decide_on_a_scale_that_weights_do_not_determine() -> None:
    """PAN enlarges by 2 or by 3 with the same tensors; without training, 2 is assumed."""
    weights = _weights(_record("pan_x2"))
    assert "scale=2" in " ".join(recognize([weights]).assumed)
    assert recognize([weights], "PAN scale=3").scale == 3
    for name in ("conv_last.weight", "conv_last.bias"):
        weights[name] *= 0  # the enlarged image alone
    assert "photos: scale=" in recognize([weights]).how


@pytest.mark.parametrize(
    ("settings", "facts"),
    [("scale=8", "scale=8.*4, 3, 2"), ("noise=15", "noise.*scale"), ("scale=two", "two.*4")],
)
def test_settings_that_do_not_fit_are_named(settings: str, facts: str) -> None:
    with pytest.raises(InvalidInputError, match=facts):
        recognize([_weights(_record("carn_m"))], f"CARN {settings}")


@pytest.mark.slow
def test_attention_at_a_sixth_of_the_size_is_exported_for_any_size(tmp_path: Path) -> None:
    """RLFN pools, strides and enlarges again, whose sizes must follow those of the image."""
    record = _record("rlfn")
    weights = _weights(record)
    weights["upsampler.0.weight"] *= 0.05
    weights["upsampler.0.bias"] += 0.5
    torch.save(weights, tmp_path / "net.pth")
    bundle = tmp_path / "net.srd"
    bundle.mkdir()
    options = Options(
        checkpoint=str(tmp_path / "net.pth"),
        name="net",
        precisions=("fp32",),
        ranges=Ranges(),
    )
    pipeline.build(options, bundle, lambda _: None)
    written = Bundle.open(bundle).manifest
    assert (written.model.scale, written.model.multiple_of) == (2, 1)
    (frame,) = photos.batch(1, 47, 61, 3)
    network = recognize([weights])
    expected = _run(network, torch.from_numpy(photos.as_float(frame[None])))[0]
    with Engine(bundle, precision="fp32") as engine:
        found = engine.upscale(frame)
    # Half a level of rounding, and the difference between two runtimes.
    assert np.abs(found - 255 * expected.transpose(1, 2, 0).clip(0, 1)).max() <= 0.6
    assert found.std() > 5
