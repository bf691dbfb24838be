"Put the best network of a run into the package: half-precision weights, log, scores, worst results and a card."

import argparse
import json
import shlex
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageOps

from dmgn.benchmarks import benchmark, benchmark_pairs
from dmgn.commands.train import Given, find_files, kept_validation, leave_out_leaks
from dmgn.files import EXAMPLES, PRETRAINED, read_rgb
from dmgn.images import example, show_images, to_pil, to_tensor
from dmgn.metrics import DEFINITIONS, Score, evaluate_pairs, psnr
from dmgn.model import DMGN
from dmgn.restore import load_network, restore
from dmgn.synthesis import Scene
from dmgn.tasks import find_task
from dmgn.training import make_config

WORDS = {
    "reflection": {
        "removes": "reflections of a window pane",
        "validation": "synthetic reflections as PLNet's and CEILNet's authors published them, which training did "
                      "not use",
        "limits": "It weakens soft, blurred reflections more than it removes them; a sharp or bright one it "
                  "cannot tell from the scene behind the pane, and where a reflection veils the whole picture "
                  "the result stays too bright. Of real panes it has seen 67: stains, double images and "
                  "polarised light are beyond it. On a photograph with hardly any reflection it does harm, most "
                  "where the background is out of focus, and one without any comes back a little darker. "
                  "`--strength 0.5` halves both, gain and harm. The synthetic reflections for its training were "
                  "made more varied (darker and defocused scenes, fainter and tinted reflections) after an "
                  "earlier network's results on real20_300 had been looked at, so that test set is not quite "
                  "unseen. It learned for minutes: its validation PSNR was still rising when it ended."},
    "deraining": {
        "removes": "rain streaks",
        "validation": "synthetic rain as in training, on other photographs",
        "limits": "Real rain it leaves nearly as it is, see gt_rain_dev: it was trained on synthetic streaks "
                  "and on pairs with synthetic rain, and wide or out-of-focus streaks, drops on the lens and "
                  "mist are beyond it. Upright lines of the scene, the bars of a grille, the columns of a "
                  "distant building, it may take for rain and remove: in rain100L's picture 24 the wire mesh "
                  "behind the woman loses every upright wire. A photograph with hardly any rain loses fine "
                  "detail. It learned for minutes: its validation PSNR was still rising when it ended."},
    "any": {
        "removes": "rain, reflections and haze, whichever there is",
        "validation": "synthetic rain, reflections and haze in turn, and some of the pairs",
        "limits": "It is not told what is there, and guesses wrong at times: pale, nearly clean pictures it "
                  "takes for haze and darkens (gt_rain_dev's scene Deadwood loses 10 dB), and upright bars, "
                  "like those of the wire mesh in rain100L's picture 24, it takes for rain. Where the noise is "
                  "known, the task's own network is the better choice; where it is not, look at the result, and "
                  "at `--strength 0.5`. It shares the limits of the others: sharp reflections stay, what thick "
                  "haze has hidden does not come back, and drops on the lens are unknown to it. A fault in how its "
                  "sources were mixed, mended since, gave haze a fifth of the samples instead of a third; 2,400 steps "
                  "more with the right mixture, of 4 crops on a CPU at a learning rate of 0.001, did not raise its "
                  "validation PSNR (20.14 dB after 400 of them, then less), and 500 at a rate of 0.0002 left it where "
                  "it was (20.17 dB). It learned for minutes: its validation PSNR was still rising when it ended."},
    "dehazing": {
        "removes": "haze",
        "validation": "synthetic haze as in training, on other photographs",
        "limits": "It guesses how thick the haze is from colours and contrast, and what thick haze has hidden "
                  "does not come back. Pale smooth walls, snow and overcast skies it may take for haze and "
                  "darken: the pictures of ihaze_small with the least haze lose, and a photograph without any "
                  "comes back darker, see above. `--strength 0.5` halves both, gain and harm. Its haze follows "
                  "one law with one colour of light: smoke, fog around lamps and haze that is coloured or lies "
                  "in patches are beyond it. Half of its training haze has DCPDN's published parameters since an "
                  "earlier network's results on sots_indoor_50 had been looked at, so that test set is not quite "
                  "unseen. It learned for minutes on a GPU and three hours on one CPU core: its validation PSNR was "
                  "still rising when it ended."},
}
CARD = """---
library_name: dmgn
license: apache-2.0
tags: [image-restoration, {task}]
---
# {name}

A small Deep-Masking Generative Network that removes {removes}: \
`DMGN.from_pretrained("{name}")`, or `dmgn restore photo.jpg{option} -o clean`.
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

On pictures that it was neither trained nor chosen on:

| pictures | protocol | as they are | restored |
|---|---|---|---|
{measured}

What a picture gains, in dB of PSNR, sorted from the worst:

| pictures | protocol | worst | 10% | median | 90% | best | lose more than 0.1 dB |
|---|---|---|---|---|---|---|---|
{gains}

![Gain of every picture, sorted from the worst, one curve for each test set](gains.png)

What it does to photographs without noise, output against input:

| pictures | protocol | mean | worst |
|---|---|---|---|
{clean}

{definitions}

`tools/bundle_network.py` measured the stored half-precision weights and wrote this card; \
the validation PSNR is from the run's log. Every picture's numbers are in `results.json`.

## Its parts at work

On validation pictures, at the step whose weights are kept:

| | |
|---|---|
{parts}

Spread: standard deviation over the pixels (separator) or the channels (ACA), 0 where a part does nothing. \
The noise map marks the noise if its correlation with the true noise is far from 0.

## Limits

{limits} \
What steps, width and data are each worth to such a network was measured on rain: `nbs/experiments/21_limits.ipynb`.

Its three worst of 24 results on the example photographs, by gain in PSNR, with noise as in validation:

![Input, restored and true photograph, in three rows](failures.png)

## Attribution

The VGG-19 trunk is Karen Simonyan's and Andrew Zisserman's (Visual Geometry Group, University of Oxford), \
*Very Deep Convolutional Networks
for Large-Scale Image Recognition*, CC BY 4.0; converted to RGB in [0, 1] with ImageNet's mean and deviation, \
and its activations scaled by 0.01.
The photographs that it was trained on are their owners'; none is part of the network.
"""
CPU = "one of two CPU cores, in which other work ran"
CLEAN = ("rain100L", "sots_indoor_50") # test sets whose targets are clean photographs


def bundle(
    run: Path, # folder that `dmgn train` wrote
    name: str, # of the bundled network
    root: Path, # folder that holds the test sets; called DATA in the card's command
    sets: tuple[str, ...] | None = None, # to measure it on; None: those of its task
    into: Path = PRETRAINED, # where the bundled networks are
    device: str = CPU, # that the run took its time on
    earlier: tuple[Path, str] | None = None, # the run that this one started from, and its device
) -> None:
    "Write INTO/NAME from a run's best network, whole or not at all"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".") as work:
        folder, before = Path(work, "new"), Path(work, "before")
        DMGN.from_pretrained(run / "best").half().save_pretrained(folder)
        network = DMGN.from_pretrained(folder)
        log, settings, data = records(run)
        names = find_task(data["task"]).test_sets if sets is None else sets
        results = {"test_sets": [row for one in names for row in measure(network, one, root)],
                   "clean": [measure_clean(network, one, root) for one in CLEAN if sets is None or one in sets]}
        told = facts(log, settings, data, run, device) | (began_with(*earlier) if earlier else {})
        (folder / "log.json").write_text(json.dumps(log))
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        save_failures(network, data["task"], settings["protocol"], folder / "failures.png")
        save_gains(results["test_sets"], folder / "gains.png")
        (folder / "README.md").write_text(card(name, folder, network, run, told, results, root))
        if (into / name).exists(): (into / name).rename(before)
        folder.rename(into / name)


def records(
    run: Path, # folder that `dmgn train` wrote
) -> tuple[dict[str, Any], ...]: # log.json, train.json, data.json
    "What a run wrote about itself"
    return tuple(json.loads((run / f"{kind}.json").read_text()) for kind in ("log", "train", "data"))


def measure(
    network: DMGN, # with the weights as they are stored
    name: str, # of the test set
    root: Path, # its folder
) -> list[dict[str, Any]]: # a row for each protocol
    "The network's scores on a test set, by its protocol; also in rgb where that is not the same"
    row, pairs = benchmark(name), benchmark_pairs(name, root)
    load_network(row.task, network)
    restored = [restore(read_rgb(source), row.task, network).background for source, _ in pairs]
    found = []
    for protocol in [row.protocol] + ["rgb"] * (row.protocol == "rgb-per-channel"):
        waiting, scores = iter(restored), {}
        for kind, predict in (("input", lambda image: image), ("restored", lambda _: next(waiting))):
            scores[kind] = evaluate_pairs(predict, pairs, protocol, row.crops)
        pictures = [{"name": a.name, "input": values(a), "restored": values(b)}
                    for a, b in zip(scores["input"][0], scores["restored"][0])]
        found.append({"benchmark": name, "protocol": protocol, "count": len(pairs)}
                     | {kind: values(mean) for kind, (_, mean) in scores.items()} | {"pictures": pictures})
    return found


def values(
    score: Score, # of a picture, or a mean
) -> dict[str, float]: # for results.json
    "PSNR in dB and SSIM"
    return {"psnr": score.psnr, "ssim": score.ssim}


def measure_clean(
    network: DMGN, # with the weights as they are stored
    name: str, # of the test set whose targets are restored
    root: Path, # its folder
) -> dict[str, Any]:
    "How near clean photographs stay to themselves"
    targets = dict.fromkeys(target for _, target in benchmark_pairs(name, root))
    found = {}
    for target in targets:
        image = read_rgb(target)
        restored = restore(image, network.config.task or "any", network).background
        found[target.name] = min(psnr(restored, image, "rgb"), 100)
    return {"benchmark": name, "protocol": "rgb", "count": len(found), "psnr": float(np.mean([*found.values()])),
            "pictures": [{"name": one, "psnr": value} for one, value in found.items()]}


def gains(
    row: dict[str, Any], # of results.json
) -> np.ndarray: # in dB, from the worst
    "What every picture gains in PSNR"
    return np.sort([one["restored"]["psnr"] - one["input"]["psnr"] for one in row["pictures"]])


def save_gains(
    rows: list[dict[str, Any]], # of results.json
    path: Path, # of the plot
) -> None:
    "The gain of every picture, sorted from the worst"
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for row in rows:
        values = gains(row)
        axes.plot(np.linspace(0, 100, len(values)), values, label=f"{row['benchmark']}, {row['protocol']}")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="% of the pictures", ylabel="gain in PSNR, dB")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def noisy_squares(
    task: str, # decides the noise
    side: int = 208, # of the squares in pixels
    seeds: int = 8, # kinds of noise on each photograph
) -> list[tuple[Image.Image, Image.Image]]: # with noise, without
    "The example photographs with noise as in validation"
    names = sorted(path.stem.removesuffix("_rain") for path in EXAMPLES.glob("*_rain.png"))
    squares = [ImageOps.fit(example(name, "rain")[1], (side, side)) for name in names]
    photographs, found = [(to_tensor(square)[0] + 1) / 2 for square in squares], []
    for n, clean in enumerate(squares):
        for seed in range(seeds):
            mixture, _ = find_task(task).synthesise_validation(Scene(photographs[n], photographs[n - 1]),
                                                               torch.Generator().manual_seed(seed))
            found.append((to_pil(mixture * 2 - 1), clean))
    return found


def save_failures(
    network: DMGN, # with the weights as they are stored
    task: str, # decides the noise
    protocol: str, # of the gain in PSNR
    path: Path, # of the picture
    count: int = 3, # rows
) -> None:
    "Input, result and truth where the network gained least, in less than 150 kB"
    rows: list[tuple[float, list[Image.Image], list[str]]] = []
    for noisy, clean in noisy_squares(task):
        restored = restore(noisy, task, network).background
        gain = psnr(restored, clean, protocol) - psnr(noisy, clean, protocol)
        rows.append((gain, [noisy, restored, clean],
                     [f"input {psnr(noisy, clean, protocol):.1f} dB",
                      f"restored {psnr(restored, clean, protocol):.1f} dB", "truth"]))
    worst = sorted(rows, key=lambda row: row[0])[:count]
    pictures, titles = [one for row in worst for one in row[1]], [one for row in worst for one in row[2]]
    for width in (208, 180, 150, 120, 90):
        show_images(pictures, titles, cols=3, width=width).save(path, optimize=True)
        if path.stat().st_size < 150_000: return


OPTIONS = ("task", "preset", "train", "train_share", "val", "pairs", "pair_share", "val_pairs", "hold_out_pairs",
           "clean_share", "streaks", "depth", "model", "crop", "short_sides") # of data.json, in the command's order


def command(
    settings: dict[str, Any], # train.json
    data: dict[str, Any], # data.json
    root: Path | None = None, # called DATA; other folders by their names alone
) -> str: # to be typed
    "The call of `dmgn train` that a run was started with"
    usual, preset = {f.name: f.default for f in fields(Given)}, asdict(make_config(data["preset"], data["task"], {}))
    words = ["dmgn", "train"]
    for name in OPTIONS:
        value = data.get(name)
        if value in (None, []) or (value == usual[name] and name != "preset"): continue
        if name == "pair_share" and not (data["pairs"] and data["train"]): continue
        for one in value if isinstance(usual[name], tuple) else [value]:
            words += [f"--{name.replace('_', '-')}", *map(str, one if isinstance(one, list) else [one])]
    if data.get("vgg"): words += ["--vgg", Path(data["vgg"]).name]
    given = {"steps" if settings["steps"] else "epochs": settings["steps"] or settings["epochs"]}
    changed = [name for name in ("batch", "accumulate", "learning_rate", "ema", "validate_every", "precision")
               if settings[name] != preset[name]]
    given |= {name: settings[name] for name in [*changed, "seed"]}
    words += [str(word) for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    words += ["--compile"] * settings["compile"] + ["--out", "RUN"]
    def named(word: str) -> str:
        if not (root and Path(word).is_absolute()): return word
        if Path(word).is_relative_to(root): return (Path("DATA") / Path(word).relative_to(root)).as_posix()
        return Path(word).name.upper()

    return shlex.join(map(named, words))


def facts(
    log: dict[str, Any], # log.json
    settings: dict[str, Any], # train.json
    data: dict[str, Any], # data.json
    run: Path, # folder of the run
    device: str, # that it took its time on
) -> dict[str, str]: # what a run was, by heading
    "How a network was trained, in words"
    given = Given(**{f.name: paths(data[f.name]) for f in fields(Given) if f.name in data})
    files = leave_out_leaks(find_files(given, run, kept_validation(run)))
    weights = ", ".join(f"{name} {value}" for name, value in settings["weights"].items() if value)
    sides, batch = data.get("short_sides"), settings["batch"] * settings["accumulate"]
    photographs, pairs = sum(map(len, files.photographs)), sum(map(len, files.pairs))
    return {
        "trained on": ", ".join([f"{photographs} photographs with synthetic noise"] * bool(photographs)
                                + [f"{pairs} pairs"] * bool(pairs)
                                + [f"{len(files.streaks)} streak layers"] * bool(files.streaks)
                                + [f"{len(files.depths)} of the photographs have depth maps"] * bool(files.depths)),
        "validated on": f"{len(files.validation) + len(files.validation_pairs)} others; "
                        f"{WORDS[data['task']]['validation']}",
        "steps": f"{log['step']} of {batch} crops of {data['crop']} x {data['crop']} pixels"
                 + (f", of photographs resized to a short side of {sides[0]} to {sides[1]}" if sides else "")
                 + f"; seed {settings['seed']}",
        "time": f"{duration(log['seconds'])} on {device}",
        "weights of the loss terms": weights,
        "optimiser": f"Adam, {settings['schedule']} schedule, learning rate up to {settings['learning_rate']}"
                     + (f", weights averaged with decay {settings['ema']}" if settings["ema"] else ""),
    }


def duration(
    seconds: float, # of a run
) -> str: # in words
    "Minutes, or hours from two hours on"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def began_with(
    run: Path, # folder of an earlier run
    device: str, # that it took its time on
) -> dict[str, str]: # by heading
    "What the weights had learned before, in words"
    log, settings, _ = records(run)
    return {"started from": f"the best network of an earlier run: {log['step']} "
                            f"steps of {settings['batch']} crops, learning rate up to {settings['learning_rate']}, "
                            f"{duration(log['seconds'])} on {device}, validation PSNR {log['best']:.2f} dB"}


def paths(
    value: Any, # of data.json
) -> Any: # as Given has it
    "Lists become tuples, absolute paths become paths"
    if isinstance(value, list): return tuple(map(paths, value))
    return Path(value) if isinstance(value, str) and Path(value).is_absolute() else value


def measured(
    row: dict[str, Any], # of results.json
) -> list[str]: # cells
    "A result in words"
    both = [row[kind] for kind in ("input", "restored")]
    return [*named(row), *(f"{mean['psnr']:.2f} dB, SSIM {mean['ssim']:.4f}" for mean in both)]


def gained(
    row: dict[str, Any], # of results.json
) -> list[str]: # cells
    "The distribution of gains in words"
    values = gains(row)
    return [*named(row), *(f"{q:+.2f}" for q in np.quantile(values, (0, 0.1, 0.5, 0.9, 1))),
            f"{np.sum(values < -0.1)} of {len(values)}"]


def named(
    row: dict[str, Any], # of results.json
) -> list[str]: # cells
    "Which pictures, and by which protocol"
    whole = benchmark(row["benchmark"]).count
    return [f"{row['benchmark']}, {row['count']}" + f" of {whole}" * (row["count"] != whole) + " pictures",
            row["protocol"]]


def table(
    rows: list[list[str]], # of cells
) -> str: # Markdown
    "Rows of a table"
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def card(
    name: str, # of the bundled network
    folder: Path, # that holds its weights
    network: DMGN, # itself
    run: Path, # folder of its run
    told: dict[str, str], # facts about it, by heading
    results: dict[str, Any], # results.json
    root: Path | None, # called DATA in the command
) -> str: # Markdown
    "The model card"
    log, settings, data = records(run)
    words, curve = WORDS[data["task"]], [row for row in log["log"] if "psnr" in row]
    best = max(curve, key=lambda row: row["psnr"])
    def decibels(row: dict[str, Any]) -> str: return f"**{row['psnr']:.2f}**" if row is best else f"{row['psnr']:.2f}"
    return CARD.format(
        name=name, task=data["task"], removes=words["removes"], limits=words["limits"],
        option="" if data["task"] == "any" else f" --task {data['task']}", taps=network.config.vgg_taps,
        weights=sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6,
        trunk=sum(p.numel() for p in network.head.trunk.parameters()) / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        command=command(settings, data, root), protocol=settings["protocol"],
        facts=table([[*fact] for fact in told.items()]),
        curve=table([[str(row["step"]), decibels(row)] for row in curve]),
        measured=table([*map(measured, results["test_sets"])]), gains=table([*map(gained, results["test_sets"])]),
        clean=table([[f"targets of {row['benchmark']}, {row['count']} pictures", row["protocol"],
                      *(f"{value:.2f} dB" for value in (row["psnr"], min(one["psnr"] for one in row["pictures"])))]
                     for row in results["clean"]]),
        parts=table([[part, f"{value:.3f}"] for part, value in best["parts"].items()]),
        definitions="\n".join(f"- {protocol}: {DEFINITIONS[protocol]}."
                              for protocol in dict.fromkeys(row["protocol"] for row in results["test_sets"])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that `dmgn train` wrote")
    parser.add_argument("name", help="of the bundled network, e.g. small-deraining")
    parser.add_argument("--data", type=Path, required=True,
                        help="folder that holds the test sets, and that the card's command calls DATA")
    parser.add_argument("--device", default=CPU, help="that the run took its time on, in words (default: %(default)s)")
    parser.add_argument("--earlier", nargs=2, metavar=("RUN", "DEVICE"), help="the run that it started from")
    args = parser.parse_args()
    earlier = (Path(args.earlier[0]), args.earlier[1]) if args.earlier else None
    bundle(args.run, args.name, args.data.resolve(), device=args.device, earlier=earlier)
    print((PRETRAINED / args.name / "README.md").read_text())
