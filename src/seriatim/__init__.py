"""seriatim: exact-likelihood autoregressive models in PyTorch.

log p(x | c) = sum_t log p(x_t | x_<t, c)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names and where they live. They are imported when first used, so that `import seriatim` and the command
# line's --help need no torch.
_PUBLIC = {
    "Autoregressive": "autoregressive",
    "AutoregressiveModel": "model",
    "Causal": "causal",
    "CausalSequential": "causal",
    "ChannelMixtureOfLogistics": "channels",
    "Columns": "columns",
    "Controls": "controls",
    "Ending": "ending",
    "Independent": "independent",
    "Nested": "nested",
    "Order": "order",
    "OrderEnsemble": "ensemble",
    "RandomOrder": "order",
    "Recompute": "causal",
    "Residual": "causal",
    "Scan": "order",
    "clone": "causal",
    "fit": "fitting",
    "load": "runs",
    "repeat": "causal",
    "rollout": "autoregressive",
    "save": "runs",
    "score_samples": "fitting",
    "select": "causal",
}

__all__ = sorted([*_PUBLIC, "__version__"])

if TYPE_CHECKING:
    from seriatim.autoregressive import Autoregressive, rollout
    from seriatim.causal import Causal, CausalSequential, Recompute, Residual, clone, repeat, select
    from seriatim.channels import ChannelMixtureOfLogistics
    from seriatim.columns import Columns
    from seriatim.controls import Controls
    from seriatim.ending import Ending
    from seriatim.ensemble import OrderEnsemble
    from seriatim.fitting import fit, score_samples
    from seriatim.independent import Independent
    from seriatim.model import AutoregressiveModel
    from seriatim.nested import Nested
    from seriatim.order import Order, RandomOrder, Scan
    from seriatim.runs import load, save


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'seriatim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"seriatim.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
