"""Pixel losses; the perceptual loss reads torchvision's file and computes VGG19's features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from examples.training.losses import PIXEL_LOSSES, PerceptualLoss, vgg19
from sr_deploy.errors import CheckpointError, InvalidInputError, NotFoundError

# Numbers of the first convolutions in torchvision's file, and their channels.
SHALLOW = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}


def weights(shapes: dict[int, tuple[int, int]]) -> dict[str, Tensor]:
    """Return random weights in torchvision's layout, and an unused part."""
    torch.manual_seed(0)
    content = {"classifier.6.bias": torch.zeros(1000)}
    for number, (width, before) in shapes.items():
        content[f"features.{number}.weight"] = (
            torch.randn(width, before, 3, 3) / (9 * before) ** 0.5
        )
        content[f"features.{number}.bias"] = 0.1 * torch.randn(width)
    return content


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    path = tmp_path / "vgg19.pth"
    torch.save(weights(SHALLOW), path)
    return path


def reference(image: Tensor) -> dict[str, Tensor]:
    """Return conv1_2 and conv2_2 of an RGB image, computed explicitly."""
    content = weights(SHALLOW)

    def conv(x: Tensor, number: int) -> Tensor:
        weight, bias = (content[f"features.{number}.{name}"] for name in ("weight", "bias"))
        return conv2d(x, weight, bias, padding=1)

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    first = conv(conv((image - mean) / deviation, 0).relu(), 2)
    return {"conv1_2": first, "conv2_2": conv(conv(max_pool2d(first.relu(), 2), 5).relu(), 7)}


def test_the_loss_is_the_weighted_difference_of_features_before_activation(shallow: Path) -> None:
    loss = PerceptualLoss(shallow, {"conv1_2": 0.5, "conv2_2": 2.0})
    one, other = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    wanted = sum(
        weight * (reference(one)[name] - reference(other)[name]).abs().mean()
        for name, weight in (("conv1_2", 0.5), ("conv2_2", 2.0))
    )
    torch.testing.assert_close(loss(one, other), wanted)
    assert loss(one, one).item() == 0.0


def test_one_channel_is_repeated(shallow: Path) -> None:
    loss = PerceptualLoss(shallow, {"conv2_2": 1.0})
    one, other = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(
        loss(one, other), loss(one.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    )


def test_gradients_reach_the_output_only(shallow: Path) -> None:
    loss = PerceptualLoss(shallow, {"conv2_2": 1.0})
    output, target = (torch.rand(1, 3, 16, 16, requires_grad=True) for _ in range(2))
    loss(output, target).backward()
    assert target.grad is None
    assert output.grad is not None
    assert float(output.grad.abs().max()) > 0
    assert all(not each.requires_grad for each in loss.parameters())


def test_layers_have_torchvisions_numbers() -> None:
    names = [name for name, _ in vgg19("conv5_4").named_children()]
    numbers = {"conv1_1": 0, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
    assert {name: names.index(name) for name in numbers} == numbers
    assert len(names) == 35
    assert vgg19("conv5_4").get_submodule("conv5_4").weight.shape == (512, 512, 3, 3)


def test_the_format_before_pytorch_1_6(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save(weights(SHALLOW), path, _use_new_zipfile_serialization=False)
    image = torch.rand(1, 3, 16, 16)
    expected = reference(image)["conv2_2"].abs().mean()
    features = PerceptualLoss(path, {"conv2_2": 1.0}).features
    assert torch.equal(
        features.get_submodule("conv2_2").weight, weights(SHALLOW)["features.7.weight"]
    )
    assert bool(expected > 0)


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vgg19_bn.pth"
    torch.save(weights({0: (64, 3), 3: (64, 64)}), path)
    with pytest.raises(CheckpointError, match=r"features\.2\.weight.*vgg19_bn"):
        PerceptualLoss(path, {"conv1_2": 1.0})
    torch.save(weights({**SHALLOW, 7: (64, 128)}), path)
    with pytest.raises(CheckpointError, match=r"\[64, 128, 3, 3\].*\[128, 128, 3, 3\]"):
        PerceptualLoss(path, {"conv2_2": 1.0})


def test_other_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"vgg19\.pth"):
        PerceptualLoss(tmp_path / "vgg19.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"page\.pth"):
        PerceptualLoss(tmp_path / "page.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth.*features\.0\.weight"):
        PerceptualLoss(tmp_path / "list.pth")


@pytest.mark.parametrize("layers", [{"conv9_1": 1.0}, {}])
def test_unknown_layers_are_an_error(shallow: Path, layers: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=r"(conv9_1|none).*conv5_4"):
        PerceptualLoss(shallow, layers)


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_pixel_losses_are_smallest_for_equal_images(loss: str) -> None:
    image = torch.rand(1, 3, 4, 4)
    equal, different = PIXEL_LOSSES[loss](image, image), PIXEL_LOSSES[loss](image + 0.5, image)
    assert equal < 2e-3  # Charbonnier is 1e-3 at zero
    assert different > 0.2
