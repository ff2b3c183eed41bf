"""Checkpoint files load as clean weights, or fail with one line that names the problem."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx import save as save_onnx
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint.load import Content, Onnx, Program, Scripted, Weights, read


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)).eval()


STATE: dict[str, Any] = network().state_dict()


def weights(content: Content) -> dict[str, torch.Tensor]:
    assert isinstance(content, Weights)
    return content.tensors


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "net.pth"
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_weights_come_back(tmp_path: Path, new: bool) -> None:
    content = {"params": STATE, "epoch": 3}
    found = read(saved(tmp_path, content, _use_new_zipfile_serialization=new))
    assert isinstance(found, Weights)
    assert found.taken == "params (of params, epoch)"
    assert list(found.tensors) == list(STATE)
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, STATE[name])
        assert tensor.dtype == STATE[name].dtype  # num_batches_tracked stays an integer
    network().load_state_dict(found.tensors)


def test_weights_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, STATE)
    found = weights(read(path))
    path.write_bytes(b"\xff" * path.stat().st_size)
    path.unlink()
    assert torch.equal(found["0.weight"], STATE["0.weight"])
    found["0.weight"].zero_()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        "conv.weight": STATE["0.weight"].to(dtype),
        "index": torch.arange(3),
        "on": torch.tensor(True),
    }
    found = weights(read(saved(tmp_path, state)))
    assert found["conv.weight"].dtype == torch.float32
    assert torch.equal(found["conv.weight"], state["conv.weight"].float())
    assert found["index"].dtype == torch.int64
    assert found["on"].dtype == torch.bool


def test_views_become_contiguous(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(4, 6).t(), "b.weight": torch.randn(9, 9)[::2, 1::3]}
    found = weights(read(saved(tmp_path, state)))
    for name, tensor in found.items():
        assert tensor.is_contiguous()
        assert torch.equal(tensor, state[name])


def test_parameters_come_as_plain_tensors(tmp_path: Path) -> None:
    state = {
        name: nn.Parameter(value) for name, value in STATE.items() if value.is_floating_point()
    }
    found = weights(read(saved(tmp_path, state)))
    assert all(type(each) is torch.Tensor and not each.requires_grad for each in found.values())


def test_norms_are_folded_after_conversion(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 4, 3)), weight_norm(nn.Conv2d(4, 3, 3))
    ).eval()
    half = {name: tensor.half() for name, tensor in layers.state_dict().items()}
    found = weights(read(saved(tmp_path, {"generator": half})))
    assert set(found) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    # Half keeps 11 bits; sigma and the norms are sums over products of such numbers.
    assert torch.allclose(found["0.weight"], layers[0].weight, rtol=5e-3, atol=1e-4)
    assert torch.allclose(found["1.weight"], layers[1].weight, rtol=5e-3, atol=1e-4)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    save_file({f"module.{name}": tensor.contiguous() for name, tensor in STATE.items()}, path)
    assert weights(read(path)).keys() == STATE.keys()
    save_file(
        {"generator.a": torch.ones(2, 2), "discriminator.a": torch.zeros(2, 2)},
        path,
        {"epoch": "3"},
    )
    found = read(path)
    assert isinstance(found, Weights)
    assert found.taken == "generator (of discriminator, generator)"
    assert bool(found.tensors["a"].all())


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="safetensors"):
        read(path)


def test_ema_and_key_select_the_weights(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    path = saved(tmp_path, {"params": STATE, "params_ema": other})
    assert torch.equal(weights(read(path))["0.bias"], other["0.bias"])
    assert torch.equal(weights(read(path, ema=False))["0.bias"], STATE["0.bias"])
    assert torch.equal(weights(read(path, key="params"))["0.bias"], STATE["0.bias"])
    with pytest.raises(CheckpointError, match=rf"^{path}: .*--key nope"):
        read(path, key="nope")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("value", "shown"),
    [(torch.nan, "NaN"), (torch.inf, "inf"), (1e300, "inf"), (7e36, "7e[+]36"), (-1e20, "1e[+]20")],
)
def test_unusable_weights_are_refused_by_name(
    tmp_path: Path, value: float, shown: str, legacy: bool
) -> None:
    bad = STATE["2.weight"].double()
    bad[1, 2, 0, 0] = value
    path = saved(tmp_path, STATE | {"2.weight": bad}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=rf"'2\.weight' .*{shown}"):
        read(path)


def test_large_weights_that_float32_can_square_are_read(tmp_path: Path) -> None:
    state = STATE | {"1.running_var": torch.full((4,), 1e12)}
    assert float(weights(read(saved(tmp_path, state)))["1.running_var"][0]) == pytest.approx(1e12)


def _member_bytes(path: Path) -> list[int]:
    """Return the offsets of all bytes of the members' content."""
    offsets: list[int] = []
    with zipfile.ZipFile(path) as archive:
        content = path.read_bytes()
        for entry in archive.infolist():
            name, extra = (
                int.from_bytes(content[entry.header_offset + at :][:2], "little") for at in (26, 28)
            )
            start = entry.header_offset + 30 + name + extra
            assert content[start : start + entry.file_size] == archive.read(entry)
            offsets += range(start, start + entry.file_size)
    return offsets


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    """The CRC-32 of each member is compared, which torch does not do."""
    path = saved(tmp_path, {"params": STATE})
    good, places = path.read_bytes(), _member_bytes(path)
    random = np.random.default_rng(0)
    for place in random.choice(places, 200):
        bad = bytearray(good)
        bad[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="CRC-32"):
            read(path)


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert weights(read(path)).keys() == STATE.keys()


def test_weights_that_are_not_selected_are_not_checked(tmp_path: Path) -> None:
    bad = {
        name: torch.full_like(tensor, torch.nan, dtype=torch.float)
        for name, tensor in STATE.items()
    }
    assert weights(read(saved(tmp_path, {"netG": STATE, "netD": bad}))).keys() == STATE.keys()


@pytest.mark.parametrize(
    ("tensor", "fact"),
    [
        (torch.ones(3, 3).to_sparse(), "sparse"),
        (torch.ones(3, 3, device="meta"), "without data"),
        (torch.ones(3, 3, dtype=torch.complex64), "complex"),
    ],
)
def test_odd_tensors(tmp_path: Path, tensor: torch.Tensor, fact: str) -> None:
    with pytest.raises(CheckpointError, match=f"'odd'.*{fact}"):
        read(saved(tmp_path, STATE | {"odd": tensor}))


def test_tensors_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(4 << 40)):
        read(saved(tmp_path, {"a.weight": torch.ones(1).expand(1 << 20, 1 << 20)}))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ({"epoch": 3}, "found epoch"),
        ({"netD": STATE}, "netD"),
        ({"netG_A": STATE, "netG_B": {"a.weight": torch.ones(2, 2)}}, "--key netG_A"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, content: Any, fact: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(CheckpointError, match=fact) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class _Writes(nn.Module):
    """Writes a file when it is opened: TorchScript calls __setstate__ of a loaded module."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        written = torch.from_file(self.path, True, 4).fill_(1.0)
        self.training = bool(written.sum() > 9.0)  # otherwise it is optimized away

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestTorchScript:
    @staticmethod
    def modules(original: nn.Module) -> dict[str, Any]:
        """TorchScript in each form that people save."""
        traced = torch.jit.trace(original, torch.rand(1, 3, 8, 8))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(original)
        return {"scripted": scripted, "traced": traced, "frozen": torch.jit.freeze(scripted)}

    @pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
    def test_trusted(self, tmp_path: Path, form: str) -> None:
        original = nn.Sequential(nn.Sequential(network()), nn.Dropout(0.5)).eval()
        path = tmp_path / "net.pt"
        torch.jit.save(self.modules(original)[form], str(path))
        found = read(path, trust=True)
        assert isinstance(found, Scripted)
        x = torch.rand(1, 3, 13, 9)
        # Freezing folds the batch norm into the convolution.
        torch.testing.assert_close(found.module(x), original(x))

    def test_saved_in_training_mode(self, tmp_path: Path) -> None:
        original = nn.Sequential(network(), nn.Dropout(0.5)).train()
        torch.jit.save(torch.jit.script(original), str(tmp_path / "net.pt"))
        found = read(tmp_path / "net.pt", trust=True)
        assert isinstance(found, Scripted)
        assert not found.module.training
        x = torch.rand(1, 3, 8, 8)
        assert torch.equal(found.module(x), original.eval()(x))

    def test_refused_unless_trusted(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(network()), str(path))
        with pytest.raises(CheckpointError, match=r"TorchScript.*--trust"):
            read(path)

    @pytest.mark.parametrize("suffix", [".py", ".PY"])
    def test_code_is_not_run_unless_trusted(self, tmp_path: Path, suffix: str) -> None:
        """torch finds members without regard to case, so a check of `.py` members is no use."""
        target, path = tmp_path / "written", tmp_path / "net.pt"
        target.write_bytes(bytes(16))  # torch.from_file also maps what exists
        torch.jit.save(torch.jit.script(_Writes(str(target))), str(path))
        target.write_bytes(bytes(16))
        rewritten(path, lambda name: name.replace(".py", suffix))
        with pytest.raises(CheckpointError, match="--trust"):
            read(path)
        assert target.read_bytes() == bytes(16)
        torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        assert target.read_bytes() != bytes(16)  # this is what loading would have done

    def test_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(network()), str(path))
        rewritten(path, lambda name: name, lambda data: data.replace(b"return", b"retrun retrun"))
        with pytest.raises(CheckpointError, match=str(path)) as caught:
            read(path, trust=True)
        assert "\n" not in str(caught.value)


def rewritten(
    path: Path,
    rename: Callable[[str], str],
    edit: Callable[[bytes], bytes] = lambda data: data,
    extra: dict[str, str] | None = None,
) -> None:
    """Write a zip archive again with other names, other code, and copies of members."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in content.items():
            archive.writestr(rename(name), edit(data) if name.endswith(".py") else data)
        for name, source in (extra or {}).items():
            archive.writestr(name, content[source])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["torch", "torchscript", "program"])
@pytest.mark.parametrize("rename", [str, str.upper, str.swapcase], ids=["same", "upper", "swapped"])
def test_colliding_member_names_are_refused(
    tmp_path: Path, kind: str, rename: Callable[[str], str]
) -> None:
    path = tmp_path / "net.pt2"
    if kind == "torch":
        torch.save(STATE, path)
    elif kind == "torchscript":
        torch.jit.save(torch.jit.script(network()), str(path))
    else:
        torch.export.save(torch.export.export(network(), (torch.rand(1, 3, 8, 8),)), path)
    with zipfile.ZipFile(path) as archive:
        first = archive.namelist()[0]
    rewritten(path, lambda name: name, extra={rename(first): first})
    with pytest.raises(CheckpointError, match="twice"):
        read(path, trust=True)


class TestProgram:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "net.pt2"
        height = torch.export.Dim("height", min=6, max=64)
        x = torch.rand(1, 3, 8, 8)
        program = torch.export.export(network(), (x,), dynamic_shapes=({2: height},))
        torch.export.save(program, path)
        return path

    def test_refused_unless_trusted(self, path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"torch\.export.*--trust"):
            read(path)

    def test_trusted(self, path: Path, tmp_path: Path) -> None:
        other_suffix = tmp_path / "net.pth"
        shutil.copy(path, other_suffix)
        x = torch.rand(1, 3, 13, 8)
        for each in (path, other_suffix):
            found = read(each, trust=True)
            assert isinstance(found, Program)
            assert torch.equal(found.module(x), network()(x))
            assert found.program.state_dict.keys() == STATE.keys()

    def test_key_is_for_weights(self, path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"--key.*program"):
            read(path, key="a")


def test_onnx(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    path = tmp_path / "net.anything"
    save_onnx(helper.make_model(graph), path)
    assert read(path) == Onnx(path)


def test_the_shipped_checkpoint(shipped_checkpoint: Path) -> None:
    found = read(shipped_checkpoint)
    assert isinstance(found, Weights)
    assert found.taken == "params_ema (of params, params_ema)"
    assert found.tensors["body.0.weight"].shape[1:] == (3, 3, 3)
