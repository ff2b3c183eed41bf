"""sr-deploy: verified super-resolution bundles, and a small runtime that runs them in tiles.

`import sr_deploy` is cheap: the engine is imported when it is asked for, a backend when it is
chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sr_deploy.errors import SrDeployError

if TYPE_CHECKING:
    from sr_deploy.engine import Engine

__all__ = ["Engine", "SrDeployError", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from sr_deploy.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
