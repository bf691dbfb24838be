"""Removes reflections, rain streaks and haze from single images."""
__version__ = "0.1.0"

from importlib import import_module
TYPE_CHECKING = False

if TYPE_CHECKING:
    from dmgn.config import DMGNConfig
    from dmgn.model import DMGN
    from dmgn.restore import restore

__all__ = ["DMGN", "DMGNConfig", "restore"]


def __getattr__(name: str):
    "What the package offers, imported when it is asked for: `import dmgn` itself takes no time."
    if name == "DMGN":
        from dmgn.model import DMGN
        return DMGN
    if name == "DMGNConfig":
        from dmgn.config import DMGNConfig
        return DMGNConfig
    if name == "restore": return import_module("dmgn.restore")  # The module answers calls: one name for both
    raise AttributeError(f"module 'dmgn' has no attribute {name!r}")
