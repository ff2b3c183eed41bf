"""A small network of each architecture, with every kind of layer; it exports within seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

GRAY, RGB = 1, 3
ALL = (4, 2, 3, 1, 8)
LARGER = (4, 2, 3, 8)
POWERS = (4, 2, 1, 8)


@dataclass(frozen=True)
class Small:
    """Small networks of an architecture of spandrel.

    Attributes:
        channels: Names of the arguments for the number of channels; empty: always three.
        scale: Name of the argument for the scale; empty: only one scale.
        scales: The supported scales.
        arguments: Arguments that make the network small.
        more: Further arguments that depend on channels and scale.
        network: Name of the class, may contain {scale}; empty: the first of the architecture.
    """

    channels: str = ""
    scale: str = ""
    scales: tuple[int, ...] = (1,)
    arguments: dict[str, Any] = field(default_factory=dict)
    more: Callable[[int, int], dict[str, Any]] = lambda _channels, _scale: {}
    network: str = ""

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """The supported numbers of channels."""
        return (RGB, GRAY) if self.channels else (RGB,)

    def of(self, channels: int, scale: int) -> dict[str, Any]:
        """Return the arguments of the class."""
        chosen = dict.fromkeys(self.channels.split(), channels)
        if self.scale:
            chosen[self.scale] = scale
        return {**chosen, **self.arguments, **self.more(channels, scale)}


def _enlarging(_channels: int, scale: int) -> dict[str, Any]:
    return {"upsampler": "pixelshuffle" if scale > 1 else ""}


def _mean_of_rgb(channels: int, _scale: int) -> dict[str, Any]:
    return {"norm": channels == RGB}


_SWIN = {"embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 8, "mlp_ratio": 2.0}
_CROSS = {"embed_dim": 32, "depth": [2], "num_heads": [2]}
_U = {"nc": [16, 16, 32, 32], "nb": 2}
_LEVELS = {"enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}

# All except GFPGAN, whose loader supports only one size.
SMALL: dict[str, Small] = {
    "ATD": Small(
        "in_chans",
        "upscale",
        ALL,
        _SWIN | {"num_tokens": 16, "reducted_dim": 4},
        _enlarging,
    ),
    "AuraSR": Small(
        scales=(4,),
        arguments={
            "dim": 16,
            "image_size": 256,
            "input_image_size": 64,
            "skip_connect_scale": 0.4,
            "style_network": {"dim_in": 32, "dim_out": 128, "depth": 2},
        },
    ),
    "Compact": Small("num_in_ch num_out_ch", "upscale", ALL, {"num_feat": 16, "num_conv": 4}),
    "CRAFT": Small("in_chans", "upscale", ALL, {"embed_dim": 48, "depths": [1], "num_heads": [6]}),
    "DAT": Small("in_chans", "upscale", LARGER, _CROSS | {"expansion_factor": 2.0}),
    "DCTLSA": Small("in_nc out_nc", "upscale", ALL, {"nf": 20}),
    "DITN": Small("", "upscale", ALL, {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1}),
    "DnCNN": Small("in_nc out_nc", arguments={"nc": 16, "nb": 5}),
    "DRCT": Small(
        "in_chans",
        "upscale",
        ALL,
        {"embed_dim": 24, "depths": (6,), "num_heads": (2,), "window_size": 8, "gc": 8},
        _enlarging,
    ),
    # A noise map is an additional input channel.
    "DRUNet": Small("out_nc", arguments=_U, more=lambda channels, _: {"in_nc": channels + 1}),
    "ESRGAN": Small("in_nc out_nc", "scale", POWERS, {"num_filters": 16, "num_blocks": 1}),
    "FBCNN": Small("in_nc out_nc", arguments=_U | {"nc": [16, 16, 32, 512]}),
    "FDAT": Small(
        "num_in_ch num_out_ch",
        "scale",
        ALL,
        {
            "embed_dim": 24,
            "num_groups": 1,
            "depth_per_group": 1,
            "num_heads": 2,
            "mid_dim": 16,
            "upsampler_type": "pixelshuffle",
        },
    ),
    "FFTformer": Small(
        "inp_channels out_channels",
        arguments={"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1},
    ),
    "GRL": Small(
        "in_channels out_channels",
        "upscale",
        ALL,
        {
            "embed_dim": 24,
            "depths": [2],
            "mlp_ratio": 2.0,
            "num_heads_window": [2],
            "num_heads_stripe": [2],
        },
        _enlarging,
    ),
    "HAT": Small(
        "in_chans",
        "upscale",
        ALL,
        _SWIN | {"squeeze_factor": 6},
    ),
    "HVICIDNet": Small(arguments={"channels": [12, 12, 24, 48]}),
    "IPT": Small(
        "",
        "",
        ALL,
        {"patch_size": 24, "n_feats": 16, "num_layers": 1},
        lambda _, scale: {"scale": [scale]},
    ),
    "KBNet": Small("img_channel", arguments=_LEVELS | {"width": 8}),
    "LaMa": Small(arguments={"in_nc": 4}),
    "MixDehazeNet": Small(arguments={"embed_dims": [8, 16, 32, 16, 8], "depths": [1, 1, 1, 1, 1]}),
    "MMRealSR": Small(
        "num_in_ch num_out_ch",
        "scale",
        (4, 2, 1),
        {"num_feat": 16, "num_block": 1, "num_grow_ch": 8, "num_feats": [16, 16, 16, 16]},
    ),
    "MoESR": Small("in_ch out_ch", "scale", ALL, {"dim": 16, "n_blocks": 1, "n_block": 1}),
    "MoSR": Small("in_ch out_ch", "upscale", ALL, {"n_block": 2, "dim": 16}),
    "NAFNet": Small("img_channel", arguments=_LEVELS | {"width": 8}),
    "OmniSR": Small("num_in_ch num_out_ch", "up_scale", ALL, {"num_feat": 32}),
    "PLKSR": Small("", "upscaling_factor", ALL, {"dim": 16, "n_blocks": 2}),
    "RCAN": Small(
        "n_colors",
        "scale",
        LARGER,
        {"n_feats": 16, "n_resgroups": 1, "n_resblocks": 2},
        _mean_of_rgb,
    ),
    "RealCUGAN": Small("in_channels out_channels", scales=(4, 2, 3), network="UpCunet{scale}x"),
    "RestoreFormer": Small(
        arguments={
            "ch": 32,
            "ch_mult": (1, 1, 1, 1, 1, 1),
            "num_res_blocks": 1,
            "n_embed": 64,
            "embed_dim": 32,
            "z_channels": 32,
        }
    ),
    "RetinexFormer": Small(arguments={"n_feat": 8, "stage": 1}),
    "RGT": Small("in_chans", "upscale", LARGER, _CROSS | {"mlp_ratio": 2.0}),
    "SAFMN": Small("", "upscaling_factor", ALL, {"dim": 16, "n_blocks": 2}),
    "SAFMNBCIE": Small(arguments={"dim": 16, "n_blocks": 1, "num_layers": 2}),
    "SCUNet": Small("in_nc", arguments={"config": [2, 1, 1, 1, 1, 1, 1]}),
    "SeemoRe": Small(
        "in_chans", "scale", ALL, {"num_experts": 3, "num_layers": 2, "embedding_dim": 16}
    ),
    "SPAN": Small("num_in_ch num_out_ch", "upscale", ALL, {"feature_channels": 16}, _mean_of_rgb),
    "SwiftSRGAN": Small(
        "in_channels", "upscale_factor", POWERS, {"num_channels": 16, "num_blocks": 2}
    ),
    "Swin2SR": Small("in_chans", "upscale", ALL, _SWIN, _enlarging),
    "SwinIR": Small("in_chans", "upscale", ALL, _SWIN, _enlarging),
    "Uformer": Small(arguments={"embed_dim": 8, "depths": [1] * 9}),
}

# What a class needs beside its defaults, or where its defaults do not make a network.
DEFAULTS: dict[str, dict[str, Any]] = {
    "AuraSR": {
        "dim": 64,
        "image_size": 256,
        "input_image_size": 64,
        "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4},
    },
    "DRCT": {"upscale": 4, "upsampler": "pixelshuffle"},
    "DRUNet": {"in_nc": 4, "out_nc": 3},  # RGB and a map of the noise
    "HAT": {"window_size": 16},
    "MMRealSR": {"num_in_ch": 3, "num_out_ch": 3},
    "NAFNet": {"enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "SAFMN": {"dim": 36},
    "SAFMNBCIE": {"dim": 48},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "Swin2SR": {"window_size": 8},
    "SwinIR": {"window_size": 8},
}
