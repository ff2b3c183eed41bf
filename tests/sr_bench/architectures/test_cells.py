from __future__ import annotations

import torch

from architectures import cells
from architectures.cells import Cell
from sr_export.models.plain_recognition import PlainArch
from sr_export.models.registry import registry
from sr_export.models.translators import TRANSLATORS


def test_every_architecture_is_included() -> None:
    found = [each.architecture for each in registry()]
    plain = {str(each.id) for each in found if isinstance(each, PlainArch) or each in TRANSLATORS}
    theirs = {str(each.id) for each in found if type(each).__module__.startswith("spandrel.")}
    assert {cell.name for cell in cells.default()} == theirs
    assert {cell.name for cell in cells.small()} == theirs - {"GFPGAN"} | plain


def test_every_architecture_comes_once_before_any_comes_again() -> None:
    order = [cell.name for cell in cells.small()]
    count = len(set(order))
    assert len(set(order[:count])) == count
    keys = [cell.key for cell in cells.small()]
    assert len(set(keys)) == len(keys)
    assert "Compact x2 gray" in keys


def test_weights_initialized_to_zero_get_random_values() -> None:
    module, spec = cells.build(Cell("NAFNet", 3, 1))
    assert spec == ""
    weights = {name: each for name, each in module.named_parameters() if "bias" not in name}
    assert all(bool(each.any()) for each in weights.values())


def test_settings_that_weights_do_not_determine_are_given() -> None:
    module, spec = cells.build(Cell("FSRCNN", 1, 3))
    assert spec == "FSRCNN scale=3"
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 24, 24)


def test_a_class_is_chosen_by_the_scale() -> None:
    module, _ = cells.build(Cell("RealCUGAN", 3, 3))
    assert type(module).__name__ == "UpCunet3x"


def test_nearly_constant_outputs_are_scaled() -> None:
    module, _ = cells.build(Cell("SRResNet", 3, 4))
    with torch.no_grad():
        output = module(torch.rand(1, 3, 32, 32))
    assert 0.1 < float(output.std()) < 0.4
    assert float(((output > 0) & (output < 1)).float().mean()) > 0.5  # little is clipped
