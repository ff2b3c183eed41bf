"""What names say."""

from __future__ import annotations

import pytest

from sr_export.checkpoint.roles import is_averaged, role_of


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("generator netG net_g G g gen model_g generator_state_dict netG_state_dict", "generator"),
        ("G_ema g_ema ganG netG_A2B G_state state_dict_G gen_params", "generator"),
        ("discriminator netD net_d D d disc D_state_dict discriminator_ema critic", "training"),
        (
            "optimizer optimizer_G optim_g g_optimizer loss_G lr_scheduler GradScaler vgg19",
            "training",
        ),
        ("model state_dict params network weights model_state_dict ema best 0 body", "unknown"),
        ("conv_g d1 g1 hr_conv conv_d lr_encoder upconv gamma degree grad", "unknown"),
    ],
)
def test_role(names: str, role: str) -> None:
    assert {name: role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_averaged() -> None:
    assert all(
        map(
            is_averaged,
            ["params_ema", "ema", "G_ema", "generatorEMA", "module_ema", "emaModel", "swa_model"],
        )
    )
    assert not any(map(is_averaged, ["schema", "params", "emaciated", "avg_pool", "state_dict"]))
