"""From files as people have them to clean weights, or one line that says what is wrong."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

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
    with pytest.raises(CheckpointError, match="damaged safetensors"):
        read(path)


def test_ema_and_key_reach_the_layout(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    path = saved(tmp_path, {"params": STATE, "params_ema": other})
    assert torch.equal(weights(read(path))["0.bias"], other["0.bias"])
    assert torch.equal(weights(read(path, ema=False))["0.bias"], STATE["0.bias"])
    assert torch.equal(weights(read(path, key="params"))["0.bias"], STATE["0.bias"])
    with pytest.raises(CheckpointError, match=rf"^{path}: there are no weights at --key nope"):
        read(path, key="nope")


@pytest.mark.parametrize(
    ("value", "word"), [(torch.nan, "NaN"), (torch.inf, "infinite values"), (1e300, "infinite")]
)
def test_weights_that_are_no_numbers(tmp_path: Path, value: float, word: str) -> None:
    bad = STATE["2.weight"].double()
    bad[1, 2, 0, 0] = value
    with pytest.raises(CheckpointError, match=rf"'2\.weight' holds {word}"):
        read(saved(tmp_path, STATE | {"2.weight": bad}))


def test_what_is_not_taken_may_hold_anything(tmp_path: Path) -> None:
    bad = {
        name: torch.full_like(tensor, torch.nan, dtype=torch.float)
        for name, tensor in STATE.items()
    }
    assert weights(read(saved(tmp_path, {"netG": STATE, "netD": bad}))).keys() == STATE.keys()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(3, 3).to_sparse(), "sparse"),
        (torch.ones(3, 3, device="meta"), "without data"),
        (torch.ones(3, 3, dtype=torch.complex64), "complex"),
    ],
)
def test_odd_tensors(tmp_path: Path, tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(saved(tmp_path, STATE | {"odd": tensor}))


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="forged"):
        read(saved(tmp_path, {"a.weight": torch.ones(1).expand(1 << 20, 1 << 20)}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3}, "holds no weights of a network; found epoch"),
        ({"netD": STATE}, r"no generator, only what trains one \(netD\)"),
        ({"netG_A": STATE, "netG_B": {"a.weight": torch.ones(2, 2)}}, "--key netG_A"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, content: Any, words: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestTorchScript:
    def test_traced_and_scripted(self, tmp_path: Path) -> None:
        original = nn.Sequential(nn.Sequential(network()), nn.Dropout(0.5))
        x = torch.rand(1, 3, 8, 8)
        for module in (torch.jit.trace(original.eval(), x), torch.jit.script(original.train())):  # type: ignore[no-untyped-call]
            path = tmp_path / "net.pt"
            torch.jit.save(module, str(path))
            found = read(path)
            assert isinstance(found, Scripted)
            assert not found.module.training
            assert torch.equal(found.module(x), original.eval()(x))

    def test_code_that_reaches_files(self, tmp_path: Path) -> None:
        class Writes(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                torch.save(x, "stolen.pt")
                return x

        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(Writes()), str(path))
        with pytest.raises(CheckpointError, match="'save', which can reach files"):
            read(path)

    def test_code_that_hides_what_it_looks_up(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(network()), str(path))
        self.replace(path, b"return", b'getattr(torch, "\\163ave")(input, "stolen.pt")\n    return')
        with pytest.raises(CheckpointError, match="'getattr', which can reach files"):
            read(path)

    def test_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pt"
        torch.jit.save(torch.jit.script(network()), str(path))
        self.replace(path, b"return", b"retrun retrun")
        with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
            read(path)
        assert "\n" not in str(caught.value)

    def replace(self, path: Path, old: bytes, new: bytes) -> None:
        """Change the code inside of a TorchScript file."""
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data.replace(old, new) if name.endswith(".py") else data)


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
        with pytest.raises(CheckpointError, match=r"can run code when opened.*--trust"):
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
        with pytest.raises(CheckpointError, match="--key is for checkpoints of weights"):
            read(path, key="a")


def test_onnx(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    path = tmp_path / "net.anything"
    save_onnx(helper.make_model(graph), path)
    assert read(path) == Onnx(path)


def test_a_published_checkpoint(shared_data: Path) -> None:
    found = read(shared_data / "checkpoints" / "realesr-animevideov3.pth")
    assert isinstance(found, Weights)
    assert found.taken == "params"
    assert found.tensors["body.0.weight"].shape == (64, 3, 3, 3)
    assert sum(each.numel() for each in found.tensors.values()) == 621_424
