"""Draws the house from its real imports: `python docs/house.py` writes docs/house.png (`make picture`).

The layers are those of the contract in pyproject.toml, so that picture and check cannot tell two stories.
"""

import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).parents[1]
IMAGES = ("images.ask", "images.train", "images.gateway", "images.console", "images.serve", "images.compress")
STAGES = ("erasure", "registry", "serving", "experiments", "evaluation", "training", "documents", "datasets", "privacy")
COLOURS = {"door": "#d9e2ef", "stage": "#dcebd9", "ground": "#efe6d5", "image": "#ead9e6"}
WIDTH, HEIGHT = 2.0, 0.46


def layers() -> list[list[str]]:
    """The layers of the house, the highest first, as import-linter's contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    written = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip(" ()") for name in layer.replace(":", "|").split("|")] for layer in written]


def edges(parts: list[str]) -> Counter[tuple[str, str]]:
    """How many modules of one part import a module of another."""
    graph = grimp.build_graph("llmops_assets", "resources", "sensors", "images")

    def part_of(module: str) -> str | None:
        return next((p for p in parts if module == p or module.startswith(f"{p}.")), None)

    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = part_of(module), part_of(imported)
            if None not in pair and pair[0] != pair[1]:
                found[pair] += 1
    return found


def unimplied(counted: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """The imports that no longer way along others implies: what is left shows the order, and can be read."""
    below: dict[str, set[str]] = {}
    for above, part in counted:
        below.setdefault(above, set()).add(part)

    def reaches(start: str, end: str) -> bool:
        return end in below.get(start, ()) or any(reaches(part, end) for part in below.get(start, ()))

    return Counter(
        {
            (above, part): count
            for (above, part), count in counted.items()
            if not any(reaches(other, part) for other in below[above] - {part})
        }
    )


def kind_of(part: str) -> str:
    """Which colour a part has: a door, a stage, what stages stand on, or a process of its own."""
    if part in IMAGES:
        return "image"
    name = part.removeprefix("llmops_assets.")
    if name in STAGES:
        return "stage"
    return "door" if name in ("cli", "definitions", "local", "sensors", "operations") else "ground"


def draw(target: Path) -> None:
    """Write the picture to `target`."""
    rows = layers()
    images = [image for image in IMAGES if (ROOT / image.replace(".", "/")).is_dir()]
    places: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(row for row in rows if "llmops_assets.with_parent" not in row):
        for column, part in enumerate(row):
            places[part] = ((column - (len(row) - 1) / 2) * 2.2, -depth * 0.85)
    for number, image in enumerate(images):
        places[image] = (4.9, -(number * 1.05 + 1.2))
    figure, axes = plt.subplots(figsize=(11, 14))
    for (above, below), count in unimplied(edges(list(places))).items():
        (x0, y0), (x1, y1) = places[above], places[below]
        up = y1 >= y0 and above not in images
        # Arrows that pass over rows bend away from the middle, the farther they go the more.
        bend = 0.0 if above in images else 0.055 * (y0 - y1) * (1 if (x0 + x1) >= 0 and hash_of(above, below) else -1)
        axes.add_patch(
            FancyArrowPatch(
                *ends(places[above], places[below], beside=above in images and below not in images),
                connectionstyle=f"arc3,rad={max(-0.6, min(0.6, bend)):.3f}",
                arrowstyle="-|>",
                mutation_scale=12,
                linewidth=0.8 + min(count, 60) / 20,
                color="#b00020" if up else ("#8a5a80" if above in images else "#4a5a6a"),
                alpha=0.9 if up else 0.7,
                zorder=1,
            )
        )
    for part, (x, y) in places.items():
        box = FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=COLOURS[kind_of(part)],
            edgecolor="#333333",
            linewidth=0.8,
            zorder=2,
        )
        axes.add_patch(box)
        axes.text(x, y, part.removeprefix("llmops_assets."), ha="center", va="center", fontsize=11, zorder=3)
    axes.text(4.9, -0.6, "in processes of their own,\nwithout Dagster", ha="center", fontsize=10, color="#555555")
    axes.set_xlim(-4.2, 6.2)
    axes.set_ylim(-len(rows) * 0.85 + 0.3, 0.7)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(
        "Who imports whom: every arrow points down.\nLeft out: what longer ways imply. The thicker, the more imports.",
        fontsize=12,
    )
    figure.savefig(target, dpi=80, bbox_inches="tight")


def ends(
    above: tuple[float, float], below: tuple[float, float], *, beside: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow between two boxes leaves the one and meets the other."""
    (x0, y0), (x1, y1) = above, below
    if beside:
        return (x0 - WIDTH / 2, y0), (x1 + WIDTH / 2, y1)
    down = 1 if y0 > y1 else -1
    return (x0, y0 - down * HEIGHT / 2), (x1, y1 + down * HEIGHT / 2)


def hash_of(*names: str) -> int:
    """0 or 1, the same in every process: to which side an arrow bends."""
    return sum(map(ord, "".join(names))) % 2


if __name__ == "__main__":
    draw(ROOT / "docs" / "house.png")
