"""The generator is found in training checkpoints, and nothing else is."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint.state_dict import is_averaged, role_of, select, strippings


def net(value: float) -> nn.Module:
    """Return a small network whose parameters all equal `value`, which identifies it."""
    network = nn.Sequential(
        OrderedDict(head=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), tail=nn.Conv2d(4, 3, 3))
    )
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    return network


KEYS = set(net(0).state_dict())
# The parameter value of each network in a training.
RAW, EMA, DISC, OTHER = 1.0, 2.0, 3.0, 4.0
G: dict[str, Any] = net(RAW).state_dict()
G_EMA: dict[str, Any] = net(EMA).state_dict()
D: dict[str, Any] = net(DISC).state_dict()


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def optimizer(value: float) -> dict[str, Any]:
    network = net(value)
    adam = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    adam.step()
    return adam.state_dict()


ADAM = optimizer(OTHER)


def averaged() -> dict[str, Any]:
    return AveragedModel(net(EMA)).state_dict()


def by_name(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return averages as buffers of their own module have them: names without dots."""
    flat = {f"{prefix}{name.replace('.', '')}": value for name, value in state.items()}
    return flat | {f"{prefix}decay": torch.tensor(0.999), f"{prefix}num_updates": torch.tensor(7)}


PARAMETERS_ONLY = {
    name: value for name, value in G_EMA.items() if name in dict(net(0).named_parameters())
}
LIGHTNING = {"pytorch-lightning_version": "2.1", "epoch": 1, "optimizer_states": [ADAM]}

# Name of the layout: its content, the path selected, and the parameter value there.
LAYOUTS: dict[str, tuple[Any, str, float]] = {
    "plain": (G, "the whole file", RAW),
    "BasicSR, both": ({"params": G, "params_ema": G_EMA}, "params_ema", EMA),
    "BasicSR, SwinIR": ({"params": G}, "params", RAW),
    "Real-ESRGAN": ({"params_ema": G_EMA}, "params_ema", EMA),
    "KAIR, data parallel": (prefixed("module.", G), "the whole file", RAW),
    "SRGAN with metrics": (
        {"epoch": 3, "best_psnr": 31.2, "best_ssim": 0.9, "state_dict": G, "ema_state_dict": G_EMA}
        | {"optimizer": ADAM, "scheduler": {"last_epoch": 3, "_step_count": 4}},
        "ema_state_dict",
        EMA,
    ),
    "SRGAN, averages of a compiled network": (
        {"epoch": 3, "state_dict": prefixed("_orig_mod.", G)}
        | {
            "ema_state_dict": {"n_averaged": torch.tensor(5)} | prefixed("module._orig_mod.", G_EMA)
        },
        "ema_state_dict",
        EMA,
    ),
    "generator and discriminator": (
        {"generator": G, "discriminator": D, "optimizer_G": ADAM, "optimizer_D": ADAM, "epoch": 1},
        "generator",
        RAW,
    ),
    "netG, netD": ({"netG": G, "netD": D, "optimG": ADAM, "optimD": ADAM}, "netG", RAW),
    "net_g with params inside": (
        {"net_g": {"params": G, "params_ema": G_EMA}, "net_d": {"params": D}},
        "net_g.params_ema",
        EMA,
    ),
    "StyleGAN-like": (
        {"g": G, "d": D, "g_ema": G_EMA, "g_optim": ADAM, "d_optim": ADAM},
        "g_ema",
        EMA,
    ),
    "G, D and an average without a letter": ({"G": G, "D": D, "ema": G_EMA}, "ema", EMA),
    "state dicts by suffix": (
        {"generator_state_dict": G, "discriminator_state_dict": D, "g_optimizer_state_dict": ADAM},
        "generator_state_dict",
        RAW,
    ),
    "model_state_dict": (
        {"model_state_dict": G, "optimizer_state_dict": ADAM, "loss": torch.tensor(0.1)},
        "model_state_dict",
        RAW,
    ),
    "model and model_ema": ({"model": G, "model_ema": G_EMA, "scaler": {}}, "model_ema", EMA),
    "shadow with a prefix": (
        {"model": G, "ema": {"decay": 0.999, "shadow": prefixed("module.", G_EMA)}},
        "ema.shadow",
        EMA,
    ),
    "shadow of parameters only": (
        {"model": G, "ema": {"shadow": PARAMETERS_ONLY}},
        "ema.shadow",
        EMA,
    ),
    "average under the discriminator's name": (
        {"generator": G, "discriminator": D, "discriminator_ema": D},
        "generator",
        RAW,
    ),
    "averaged model alone": (averaged(), "the whole file", EMA),
    "averaged model beside": ({"net": G, "avg": averaged()}, "avg", EMA),
    "compile, then data parallel": (
        {"model": prefixed("module._orig_mod.", G), "optimizer": ADAM},
        "model",
        RAW,
    ),
    "compiled parts": (
        {"head._orig_mod.weight": G["head.weight"]}
        | {name: value for name, value in G.items() if name != "head.weight"},
        "the whole file",
        RAW,
    ),
    "Lightning": ({**LIGHTNING, "state_dict": prefixed("model.", G)}, "state_dict", RAW),
    "Lightning GAN": (
        {**LIGHTNING, "state_dict": prefixed("generator.", G) | prefixed("discriminator.", D)},
        "state_dict.generator",
        RAW,
    ),
    "Lightning with a loss network": (
        {**LIGHTNING, "state_dict": prefixed("net.", G) | prefixed("vgg_loss.vgg.", D)},
        "state_dict.net",
        RAW,
    ),
    "Lightning with averages": (
        {**LIGHTNING, "state_dict": prefixed("model.", G) | prefixed("ema_model.module.", G_EMA)},
        "state_dict.ema_model",
        EMA,
    ),
    "Lightning with averages as buffers": (
        {**LIGHTNING, "state_dict": prefixed("model.", G) | by_name("model_ema.", G_EMA)},
        "state_dict.model_ema",
        EMA,
    ),
    "Lightning with averages in a callback": (
        {**LIGHTNING, "state_dict": prefixed("model.", G)}
        | {"callbacks": {"EMA": {"ema_state_dict": prefixed("model.", G_EMA)}}},
        "callbacks.EMA.ema_state_dict",
        EMA,
    ),
    "both in one, deeper": (
        prefixed("module.gan.netG.", G) | prefixed("module.gan.netD.", D),
        "gan.netG",
        RAW,
    ),
    "single letters": (prefixed("G.", G) | prefixed("D.", D), "G", RAW),
    "online and average": (
        prefixed("online_model.", G)
        | prefixed("ema_model.", G_EMA)
        | {"initted": torch.tensor(True), "step": torch.tensor(3)},
        "ema_model",
        EMA,
    ),
    "a tuple": ((7, {"generator": G}), "1.generator", RAW),
    "parameters": (
        OrderedDict((k, nn.Parameter(v, False)) for k, v in G.items() if v.ndim),
        "",
        RAW,
    ),
    "random states beside": (
        {"state_dict": G, "rng": torch.get_rng_state(), "history": {"psnr": torch.ones(9)}},
        "state_dict",
        RAW,
    ),
    "a kernel beside": ({"blur": torch.ones(5, 5), "state_dict": G}, "state_dict", RAW),
    "a matrix inside": (G | {"colours": {"to_luma": torch.ones(3, 3)}}, "the whole file", RAW),
    "the same twice": ({"model": G, "best_model": dict(G)}, "model", RAW),
}


def shortest(tensors: dict[str, Any]) -> dict[str, Any]:
    *_, last = strippings(tensors)
    return last


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    content, path, filled = LAYOUTS[name]
    taken, tensors = select(content)
    assert taken.startswith(path)
    found = shortest(tensors)
    assert found.keys() <= KEYS
    assert found.keys() >= dict(net(0).named_parameters()).keys()
    assert bool((found["head.weight"] == filled).all())
    assert bool((found["norm.weight"] == filled).all())


def test_raw_weights_on_request() -> None:
    for name, (content, _, filled) in LAYOUTS.items():
        _, tensors = select(content, ema=False)
        only_averages = name in ("Real-ESRGAN", "averaged model alone")
        assert float(shortest(tensors)["head.bias"][0]) == (filled if only_averages else RAW), name


def test_the_selection_is_described() -> None:
    content = {"params": G, "params_ema": G_EMA, "epoch": 3}
    assert select(content)[0] == "params_ema (of params, params_ema, epoch)"
    assert select({"params": G})[0] == "params"
    assert select(G)[0] == "the whole file"


def test_wrapper_prefixes_are_removed_and_the_networks_own_stays() -> None:
    old_esrgan = {
        "model.0.weight": torch.ones(4, 3, 3, 3),
        "model.1.sub.0.weight": torch.ones(4, 4),
    }
    assert select(old_esrgan)[1].keys() == old_esrgan.keys()
    assert select({"state_dict": prefixed("module.", old_esrgan)})[1].keys() == old_esrgan.keys()
    in_lightning = prefixed("model.", old_esrgan)
    tried = [set(each) for each in strippings(select({"state_dict": in_lightning})[1])]
    assert tried[:2] == [set(in_lightning), set(old_esrgan)]  # the reader tries the longer first


def test_strippings_end_where_names_differ() -> None:
    tensors = {"a.b.c.weight": torch.ones(1), "a.b.d.weight": torch.ones(1)}
    assert [next(iter(each)) for each in strippings(tensors)] == [
        "a.b.c.weight",
        "b.c.weight",
        "c.weight",
    ]
    assert [list(each) for each in strippings({"a.weight": torch.ones(1)})] == [
        ["a.weight"],
        ["weight"],
    ]


def test_layers_with_role_names_do_not_split_a_network() -> None:
    """Attention calls its layers g, theta and ema; they belong to the network around them."""
    layers = ("g", "theta", "phi", "ema", "d1", "g1")
    state = {f"{layer}.weight": torch.ones(4, 4) for layer in layers}
    assert select(state)[1].keys() == state.keys()
    one_letter = {"d.weight": torch.ones(4, 4), "conv.weight": torch.ones(4, 4)}
    assert select(one_letter)[1].keys() == one_letter.keys()


def test_an_average_of_another_network_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    other = {"fc.weight": torch.ones(4, 4)}
    with caplog.at_level(logging.WARNING):
        assert select({"model": G, "model_ema": other})[0].startswith("model (")
    assert "model_ema" in caplog.text


def test_key_selects_a_path() -> None:
    content = {"netG": {"params": G, "params_ema": G_EMA}, "netD": D}
    assert select(content, key="netG.params")[0] == "netG.params (of netG, netD)"
    assert float(select(content, key="netG.params")[1]["head.bias"][0]) == RAW
    assert float(select(content, key="netG")[1]["head.bias"][0]) == EMA
    assert float(select(content, key="netD")[1]["head.bias"][0]) == DISC  # as requested
    flat = {"state_dict": prefixed("module.generator.", G) | prefixed("module.discriminator.", D)}
    assert select(flat, key="state_dict.discriminator")[1].keys() == KEYS
    assert float(select([G, D], key="1")[1]["head.bias"][0]) == DISC


@pytest.mark.parametrize("key", ["nope", "netG.nope", "epoch", "netG.head.weight"])
def test_a_key_without_weights(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"--key {key}"):
        select({"netG": G, "epoch": 3}, key=key)


def test_ambiguous_networks_are_listed() -> None:
    with pytest.raises(CheckpointError, match=r"netG_A \(\d+ tensors\), netG_B.*--key netG_A"):
        select({"netG_A": G, "netG_B": G_EMA, "netD_A": D})
    with pytest.raises(CheckpointError, match=r"2 .*ema1 \(.*ema2"):
        select({"model": G, "ema1": G_EMA, "ema2": D})


def test_only_a_discriminator() -> None:
    with pytest.raises(CheckpointError, match="netD"):
        select({"netD": D, "optimizer_D": ADAM})


@pytest.mark.parametrize(
    "content",
    [
        {"optimizer": ADAM, "epoch": 1},
        ADAM,
        {"epoch": 1},
        {},
        [],
        3,
        torch.ones(4, 4),
        {"a": {"b": 1}},
    ],
)
def test_no_network(content: Any) -> None:
    with pytest.raises(CheckpointError):
        select(content)


def test_a_container_that_contains_itself() -> None:
    content: dict[str, Any] = {"model": G}
    content["self"] = content
    assert select(content)[0].startswith("model")


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
def test_role_of_a_name(names: str, role: str) -> None:
    assert {name: role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_names_of_averages() -> None:
    assert all(
        map(
            is_averaged,
            ["params_ema", "ema", "G_ema", "generatorEMA", "module_ema", "emaModel", "swa_model"],
        )
    )
    assert not any(map(is_averaged, ["schema", "params", "emaciated", "avg_pool", "state_dict"]))
