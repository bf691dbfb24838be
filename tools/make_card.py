"Draws the card that chats and feeds show for a link to the site, nbs/images/social-card.jpg: python tools/make_card.py"
from pathlib import Path

from matplotlib.figure import Figure

from dmgn.images import example
from dmgn.restore import restore

CARD = Path(__file__).resolve().parents[1]/"nbs/images/social-card.jpg"


def card(
    path: Path,  # Of the JPEG
) -> None:
    "1200 x 630 pixels: a rainy photograph, its left half restored, and the name."
    rainy, _ = example("cat")
    both = rainy.copy()
    both.paste(restore(rainy, task="deraining").background.crop((0, 0, rainy.width//2, rainy.height)), (0, 0))
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#10273d")
    axes = figure.add_axes((0, 0.2, 1, 0.8))
    axes.imshow(both, aspect="auto", interpolation="lanczos", extent=(0, 1200, 0, 504))
    axes.set(xlim=(0, 1200), ylim=(60, 444))
    axes.axvline(600, color="white", linewidth=3)
    axes.axis("off")
    figure.text(0.03, 0.105, "DMGN", color="white", fontsize=34, weight="bold", va="center")
    figure.text(0.2, 0.105, "Removes reflections, rain and haze,\nwith a network you can read", color="white",
                fontsize=22, va="center")
    figure.savefig(path, pil_kwargs={"quality": 82})


if __name__ == "__main__": card(CARD)
