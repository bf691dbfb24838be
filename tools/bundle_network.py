"Put the best network of a run into the package: half-precision weights, log, scores, worst results and a card."

import argparse
import json
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from dmgn.benchmarks import benchmark, benchmark_pairs
from dmgn.commands.train import split_pairs, split_photographs
from dmgn.files import EXAMPLES, PRETRAINED, read_rgb
from dmgn.images import example, show_images, to_pil, to_tensor
from dmgn.metrics import DEFINITIONS, Score, evaluate_pairs, psnr
from dmgn.model import DMGN
from dmgn.restore import load_network, restore
from dmgn.synthesis import Scene
from dmgn.tasks import TASKS
from dmgn.training import TrainConfig

WORDS = {
    "reflection": {
        "removes": "reflections of a window pane",
        "validation": "synthetic reflections as PLNet's and CEILNet's authors published them, which training did "
                      "not use",
        "limits": "It weakens soft, blurred reflections more than it removes them, and a sharp or bright "
                  "reflection it cannot tell from the scene behind the pane. "
                  "It was trained on synthetic reflections only: real panes with stains, double images or "
                  "polarised light are beyond it, and it may dull highlights that belong to the scene. Its "
                  "results stay too bright where a reflection veils the whole picture. On a photograph with "
                  "hardly any reflection it does harm: of real20_300's twenty pictures three end farther from the"
                  " truth than they were, "
                  "by 0.5, 0.8 and, the one that is nearly clean with a background out of focus, 5 dB. The "
                  "synthetic reflections for its training were made more varied (darker and defocused scenes, "
                  "fainter and tinted reflections) after an earlier network's results on real20_300 had been "
                  "looked at, so that test set is not quite unseen."},
    "deraining": {
        "removes": "rain streaks",
        "validation": "synthetic rain as in training, on other photographs",
        "limits": "It was trained on synthetic rain: wide or out-of-focus streaks, drops on the lens and mist are"
                  " beyond it. "
                  "Thin bright lines of the scene, such as whiskers, wires and fences, may be taken for rain, and"
                  " a photograph with hardly any rain loses fine detail: of those below, which have synthetic "
                  "rain, the nearly clean ones end 5 to 12 dB farther from the truth."},
    "dehazing": {
        "removes": "haze",
        "validation": "synthetic haze as in training, on other photographs",
        "limits": "It guesses how thick the haze is from colours and contrast, and what thick haze has hidden "
                  "does not come back. Pale smooth walls, snow and overcast skies it often takes for haze: in "
                  "ihaze_small's rooms "
                  "they come out dark, in greenish blotches, and of its fifteen pictures two end farther from the"
                  " truth than they were, by 2 and 7 dB. Haze with a blue tint keeps it. "
                  "Its haze follows one law with one colour of light: smoke, fog around lamps and haze that is "
                  "coloured or lies in patches are beyond it."},
}
CARD = """---
library_name: dmgn
license: apache-2.0
tags: [image-restoration, {task}]
---
# {name}

A small Deep-Masking Generative Network that removes {removes}: \
`DMGN.from_pretrained("{name}")`, or `dmgn restore photo.jpg --task {task} -o clean`.
{weights:.2f} M trained weights and VGG-19 down to relu{taps}_1 ({trunk:.2f} M, frozen), \
stored in half precision ({megabytes:.1f} MB).

## Training

```sh
{command}
```

| | |
|---|---|
{facts}

Validation PSNR (protocol {protocol}), logged during training; the weights of the best one are kept:

| step | dB |
|---|---|
{curve}

## Measured

| pictures | protocol | as they are | restored |
|---|---|---|---|
{measured}

{definitions}

`tools/bundle_network.py` measured the stored half-precision weights and wrote this card; \
the validation PSNR is from the run's log.

## Limits

{limits}

Its three worst of 24 results on the example photographs, by gain in PSNR, with noise as in validation:

![Input, restored and true photograph, in three rows](failures.png)

## Attribution

The VGG-19 trunk is Karen Simonyan's and Andrew Zisserman's (Visual Geometry Group, University of Oxford), \
*Very Deep Convolutional Networks
for Large-Scale Image Recognition*, CC BY 4.0; converted to RGB in [0, 1] with ImageNet's mean and deviation, \
and its activations scaled by 0.01.
The photographs that it was trained on are their owners'; none is part of the network.
"""


def bundle(
    run: Path, # folder that `dmgn train` wrote
    name: str, # of the bundled network
    benchmark_name: str, # test set of its task
    root: Path, # the test set's folder
    data_root: Path | None = None, # called DATA in the card's command
    photographs: str | None = None, # what it was trained on, for the card
    into: Path = PRETRAINED, # where the bundled networks are
) -> None:
    "Write INTO/NAME from a run's best network, whole or not at all"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".") as work:
        folder, before = Path(work, "new"), Path(work, "before")
        DMGN.from_pretrained(run / "best").half().save_pretrained(folder)
        network = DMGN.from_pretrained(folder)
        log, settings, data = (json.loads((run / f"{kind}.json").read_text()) for kind in ("log", "train", "data"))
        results = measure(network, benchmark_name, root)
        (folder / "log.json").write_text(json.dumps(log))
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        save_failures(network, settings["protocol"], folder / "failures.png")
        (folder / "README.md").write_text(card(name, folder, network, log, settings, data, results, data_root,
                                               photographs))
        if (into / name).exists(): (into / name).rename(before)
        folder.rename(into / name)


def measure(
    network: DMGN, # with the weights as they are stored
    name: str, # of the test set
    root: Path, # its folder
) -> list[dict[str, Any]]: # a row a protocol
    "The network's scores on a test set, by its protocol; also in rgb where that is not the same"
    row, pairs = benchmark(name), benchmark_pairs(name, root)
    load_network(row.task, network)
    restored = [restore(read_rgb(source), row.task, network).background for source, _ in pairs]
    def values(score: Score) -> dict[str, float]: return {"psnr": score.psnr, "ssim": score.ssim}
    found = []
    for protocol in [row.protocol] + ["rgb"] * (row.protocol == "rgb-per-channel"):
        waiting = iter(restored)
        scores = {"input": lambda image: image, "restored": lambda _: next(waiting)}
        means = {what: values(evaluate_pairs(predict, pairs, protocol, row.crops)[1])
                 for what, predict in scores.items()}
        found.append({"benchmark": name, "protocol": protocol, "count": len(pairs), **means})
    return found


def noisy_squares(
    task: str, # decides the noise
    side: int = 208, # of the squares in pixels
    seeds: int = 8, # kinds of noise on each photograph
) -> list[tuple[Image.Image, Image.Image]]: # with noise, without
    "The example photographs with noise as in validation"
    names = sorted(path.stem.removesuffix("_rain") for path in EXAMPLES.glob("*_rain.png"))
    squares = [ImageOps.fit(example(name, TASKS[task].noise)[1], (side, side)) for name in names]
    photographs, found = [(to_tensor(square)[0] + 1) / 2 for square in squares], []
    for n, clean in enumerate(squares):
        for seed in range(seeds):
            mixture, _ = TASKS[task].synthesise_validation(Scene(photographs[n], photographs[n - 1]),
                                                    torch.Generator().manual_seed(seed))
            found.append((to_pil(mixture * 2 - 1), clean))
    return found


def save_failures(
    network: DMGN, # with the weights as they are stored
    protocol: str, # of the gain in PSNR
    path: Path, # of the picture
    count: int = 3, # rows
) -> None:
    "Input, result and truth where the network gained least, in less than 150 kB"
    task, rows = network.config.task, []
    for noisy, clean in noisy_squares(task):
        restored = restore(noisy, task, network).background
        gain = psnr(restored, clean, protocol) - psnr(noisy, clean, protocol)
        rows.append((gain, [noisy, restored, clean],
                     [f"input {psnr(noisy, clean, protocol):.1f} dB",
                      f"restored {psnr(restored, clean, protocol):.1f} dB", "truth"]))
    worst = sorted(rows, key=lambda row: row[0])[:count]
    pictures, titles = ([one for row in worst for one in row[k]] for k in (1, 2))
    for width in (208, 180, 150, 120, 90):
        show_images(pictures, titles, cols=3, width=width).save(path, optimize=True)
        if path.stat().st_size < 150_000: return


def command(
    settings: dict[str, Any], # train.json
    data: dict[str, Any], # data.json
    data_root: Path | None = None, # called DATA
) -> str: # to be typed
    "The call of `dmgn train` that a run was started with"
    preset = asdict(TrainConfig.small(settings["steps"]) if data.get("preset", "small") == "small" else TrainConfig())
    given = {name: data.get(name) for name in ("task", "preset", "train", "val", "pairs", "val_pairs", "depth", "model",
                                               "crop", "short_sides")}
    if data.get("pairs") and data.get("train"): given["pair_share"] = data["pair_share"]
    if data.get("vgg"): given["vgg"] = Path(data["vgg"]).name
    given["steps" if settings["steps"] else "epochs"] = settings["steps"] or settings["epochs"]
    changed = [name for name in ("batch", "accumulate", "learning_rate", "validate_every", "precision")
               if settings[name] != preset[name]]
    given |= {name: settings[name] for name in [*changed, "seed"]}
    words = ["dmgn", "train"]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    words += ["--compile"] * settings["compile"] + ["--out", "RUN"]
    def below(word: str) -> bool: return bool(data_root) and Path(word).is_relative_to(data_root)
    return shlex.join((Path("DATA") / Path(word).relative_to(data_root)).as_posix() if below(word) else word
                      for word in words)


def facts(
    log: dict[str, Any], # log.json
    settings: dict[str, Any], # train.json
    data: dict[str, Any], # data.json
    photographs: str | None, # what they are
) -> dict[str, str]: # what a run was, by heading
    "How a network was trained, in words"
    folders = {name: data.get(name) and Path(data[name]) for name in ("train", "val")}
    pairs = {name: data.get(name) and tuple(map(Path, data[name])) for name in ("pairs", "val_pairs")}
    training, validation = split_photographs(**folders)
    training_pairs, validation_pairs = split_pairs(**pairs, photographs=bool(validation))
    weights = ", ".join(f"{name} {value}" for name, value in settings["weights"].items() if value)
    sides, batch = data.get("short_sides"), settings["batch"] * settings["accumulate"]
    return {
        "trained on": photographs or f"{len(training)} photographs with synthetic noise"
        + f", {len(training_pairs)} pairs" * bool(training_pairs),
        "validated on": f"{len(validation) + len(validation_pairs)} others; {WORDS[data['task']]['validation']}",
        "steps": f"{log['step']} of {batch} crops of {data['crop']} x {data['crop']} pixels"
                 + (f", of photographs resized to a short side of {sides[0]} to {sides[1]}" if sides else "")
                 + f"; seed {settings['seed']}",
        "time": f"{log['seconds'] / 60:.0f} minutes by the clock on two CPU cores, "
                "in which other work ran and the run was paused at times",
        "weights of the loss terms": weights,
        "optimiser": f"Adam, {settings['schedule']} schedule, learning rate up to {settings['learning_rate']}"
                     + (f", weights averaged with decay {settings['ema']}" if settings["ema"] else ""),
    }


def measured(
    row: dict[str, Any], # of results.json
) -> str: # a row of a table
    "A result in words"
    whole = benchmark(row["benchmark"]).count
    cells = [f"{row['benchmark']}, {row['count']}" + f" of {whole}" * (row["count"] != whole)
             + " pictures, never trained on", row["protocol"]]
    return table([[*cells, *(f"{row[what]['psnr']:.2f} dB, SSIM {row[what]['ssim']:.4f}"
                             for what in ("input", "restored"))]])


def table(
    rows: list[list[str]], # of cells
) -> str: # Markdown
    "Rows of a table"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def card(
    name: str, # of the bundled network
    folder: Path, # that holds its weights
    network: DMGN, # itself
    log: dict[str, Any], # log.json
    settings: dict[str, Any], # train.json
    data: dict[str, Any], # data.json
    results: list[dict[str, Any]], # results.json
    data_root: Path | None, # called DATA in the command
    photographs: str | None, # what it was trained on
) -> str: # Markdown
    "The model card"
    words, curve = WORDS[network.config.task], [row for row in log["log"] if "psnr" in row]
    def decibels(value: float) -> str: return f"**{value:.2f}**" if value == log["best"] else f"{value:.2f}"
    return CARD.format(
        name=name, task=network.config.task, removes=words["removes"], limits=words["limits"],
        taps=network.config.vgg_taps,
        weights=sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6,
        trunk=sum(p.numel() for p in network.head.trunk.parameters()) / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        command=command(settings, data, data_root), protocol=settings["protocol"],
        facts=table([[*fact] for fact in facts(log, settings, data, photographs).items()]),
        curve=table([[str(row["step"]), decibels(row["psnr"])] for row in curve]),
        measured="\n".join(map(measured, results)),
        definitions="\n".join(f"- {row['protocol']}: {DEFINITIONS[row['protocol']]}." for row in results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that `dmgn train` wrote")
    parser.add_argument("name", help="of the bundled network, e.g. tiny-deraining")
    parser.add_argument("--benchmark", required=True, help="test set to measure it on, e.g. rain100L")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the test set")
    parser.add_argument("--data-root", type=Path, help="folder that the card's command calls DATA")
    parser.add_argument("--photographs", help="what it was trained on, for the card")
    args = parser.parse_args()
    bundle(args.run, args.name, args.benchmark, args.root, args.data_root, args.photographs)
    print((PRETRAINED / args.name / "README.md").read_text())
