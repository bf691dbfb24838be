"""Removes reflections, rain streaks and haze from single images."""
__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmgn.config import DMGNConfig
    from dmgn.model import DMGN
    from dmgn.restore import restore

__all__ = ["DMGN", "DMGNConfig", "restore"]


def __getattr__(name: str):
    "What the package offers, imported when it is asked for: `import dmgn` itself takes no time."
    if name == "DMGN": from dmgn.model import DMGN as found
    elif name == "DMGNConfig": from dmgn.config import DMGNConfig as found
    elif name == "restore": import dmgn.restore as found # a module that can be called
    else: raise AttributeError(f"module 'dmgn' has no attribute {name!r}")
    return found
