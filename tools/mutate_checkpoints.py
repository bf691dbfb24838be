"""Loads copies of a network's folder that are changed in one place.

None may load as another network or end with a traceback.
python tools/mutate_checkpoints.py [--count 300] [--seed 0] [--network small-deraining]; exit code 1 if one did."""

import argparse
import collections
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import small_run  # noqa: E402
from dmgn.files import PRETRAINED  # noqa: E402
from dmgn.model import DMGN  # noqa: E402
from dmgn.restore import load_network  # noqa: E402
from mutations import change_config, change_header, change_tensors, same_weights  # noqa: E402

SECONDS, MEMORY = 20, 12 * 2**30
OUTCOMES = ("the same", "refused", "DIFFERENT", "TRACEBACK", "HUNG")
HUGE = {
    "width": (10**6, 10**9, 2**63, 10**30),
    "middle_cells": (10**6, 10**9),
    "vgg_taps": (10**6,),
    "refine_dilations": ([1, 10**9], [1] * 10**5, [2**63]),
}
TYPES = {
    "width": (True, "4", 4.0, None, [4], {}),
    "middle_cells": (True, "1", None, [1]),
    "vgg_taps": (True, 1.0, "1", None),
    "refine_dilations": ("12", 5, None, [True, 2], [1.0, 2.0], {"1": 2}, [[1]]),
    "cell": (None, 1, ["rdmc"], {}),
    "noise_branch": ("no", 1, None, [], {}),
    "refine": ("false", 1, None),
    "source_regularisation": ("no", 1),
    "refine_tanh": (0, "", None),
    "alpha": (True, "0.4", None, [0.4]),
    "decay": (True, "0.5", {}),
    "task": (1, [], {}, True),
}


def flip(path: Path, chance: random.Random, first: int, last: int) -> None:
    "One to three bits of a file, between two places"
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def header_length(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flipped_in_the_data(folder: Path, chance: random.Random) -> None:
    weights = folder / "model.safetensors"
    flip(weights, chance, header_length(weights), weights.stat().st_size)


def flipped_in_the_header(folder: Path, chance: random.Random) -> None:
    weights = folder / "model.safetensors"
    flip(weights, chance, 0, header_length(weights))


def truncated(folder: Path, chance: random.Random) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: chance.randrange(weights.stat().st_size)])


def one_of(state: dict, chance: random.Random) -> str:
    return chance.choice(sorted(state))


def missing(folder: Path, chance: random.Random) -> None:
    def change(state: dict) -> dict:
        gone = chance.sample(sorted(state), chance.choice([1, 1, 2, len(state) // 2, len(state)]))
        return {name: t for name, t in state.items() if name not in gone}

    change_tensors(folder, change)


def renamed(folder: Path, chance: random.Random) -> None:
    def change(state: dict) -> dict:
        name = one_of(state, chance)
        new = chance.choice([name + "x", name.upper(), f"module.{name}", name.replace(".", "/")])
        return {new if n == name else n: t for n, t in state.items()}

    change_tensors(folder, change)


def extra(folder: Path, chance: random.Random) -> None:
    name = chance.choice(["", "x", "refining.cells.99.attention.0.weight", "head.mix.weight2"])
    change_tensors(folder, lambda state: state | {name: torch.zeros(chance.choice([(0,), (1,), (3, 3)]))})


def of_another_dtype(folder: Path, chance: random.Random) -> None:
    dtype = chance.choice(
        [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int8, torch.bool, torch.complex64]
    )

    def change(state: dict) -> dict:
        names = [one_of(state, chance)] if chance.random() < 0.5 else list(state)
        return {n: t.to(dtype) if n in names else t for n, t in state.items()}

    change_tensors(folder, change)


def labelled_with_another_dtype(folder: Path, chance: random.Random) -> None:
    def change(header: dict) -> dict:
        name = chance.choice([n for n in sorted(header) if n != "__metadata__"])
        return header | {
            name: header[name] | {"dtype": chance.choice(["I32", "U32", "F64", "F16", "BF16", "F99", "", 7, None])}
        }

    change_header(folder, change)


def of_another_shape(folder: Path, chance: random.Random) -> None:
    def change(state: dict) -> dict:
        name = one_of(state, chance)
        t = state[name]
        return state | {
            name: chance.choice([t[:0], t[None], t.flatten()[:-1], torch.cat([t, t]), t.flatten().flip(0)[None]])
        }

    change_tensors(folder, change)


def not_finite(folder: Path, chance: random.Random) -> None:
    def change(state: dict) -> dict:
        name = one_of(state, chance)
        changed = state[name].clone()
        changed.view(-1)[chance.randrange(changed.numel())] = chance.choice([torch.nan, torch.inf, -torch.inf])
        return state | {name: changed}

    change_tensors(folder, change)


def of_a_size_that_no_machine_has(folder: Path, chance: random.Random) -> None:
    if chance.random() < 0.3:
        size = chance.choice([2**40, 2**62, -1, 10**30])

        def change(header: dict) -> dict:
            name = chance.choice([n for n in sorted(header) if n != "__metadata__"])
            return header | {name: header[name] | chance.choice([{"shape": [size, size]}, {"data_offsets": [0, size]}])}

        return change_header(folder, change)
    name = chance.choice(sorted(HUGE))
    change_config(folder, **{name: chance.choice(HUGE[name])})


def with_a_config_of_wrong_types(folder: Path, chance: random.Random) -> None:
    path = folder / "config.json"
    if chance.random() < 0.2:
        path.write_text(
            chance.choice(["", "[]", "null", "7", '"a"', "[" * 10**5, "[[]" * 10**4, path.read_text()[:-5]])
        )
    else:
        name = chance.choice(sorted(TYPES))
        change_config(folder, **{name: chance.choice(TYPES[name])})


KINDS = (
    flipped_in_the_data,
    flipped_in_the_header,
    truncated,
    missing,
    renamed,
    extra,
    of_another_dtype,
    labelled_with_another_dtype,
    of_another_shape,
    not_finite,
    of_a_size_that_no_machine_has,
    with_a_config_of_wrong_types,
)
CHECKED = (
    flipped_in_the_data,
    flipped_in_the_header,
    truncated,
)  # what only a checksum can see has one; the others may lack it


def outcome(folder: Path, original: DMGN) -> tuple[str, str]:  # one of OUTCOMES, and the message
    "What loading a folder gives"
    try:
        found = load_network("deraining", folder)
    except (ValueError, OSError) as error:
        return ("TRACEBACK" if "\n" in str(error) else "refused"), str(error)
    except BaseException as error:
        return "TRACEBACK", f"{type(error).__name__}: {error}"  # whatever it is, a user sees it
    same = (
        found.config == original.config
        and repr(found.config) == repr(original.config)
        and same_weights(found, original)
    )
    return ("the same" if same else "DIFFERENT"), ""


def serve(pipe, original: DMGN) -> None:
    "Answer for one folder after another, with a bound on memory"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")  # a folder without checksum is noted
    while folder := pipe.recv():
        pipe.send(outcome(folder, original))


class Loader:
    "A process that loads; a new one after each that died or hung"

    def __init__(self, original: DMGN):
        self.original, self.process = original, None

    def __call__(self, folder: Path) -> tuple[str, str]:
        if self.process is None or not self.process.is_alive():
            context = multiprocessing.get_context("fork")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.original), daemon=True)
            self.process.start()
            other.close()
        self.pipe.send(folder)
        try:
            return self.pipe.recv() if self.pipe.poll(SECONDS) else ("HUNG", f"after {SECONDS} s")
        except EOFError:
            return "TRACEBACK", "the process died"
        finally:
            if not self.process.is_alive() or self.pipe.poll(0):
                self.stop()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None


def mutate(source: Path, folder: Path, kind: Callable, seed: str) -> None:
    "Make a changed copy"
    chance = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    if kind not in CHECKED and chance.random() < 0.5:
        (folder / "model.safetensors.sha256").unlink(missing_ok=True)
    kind(folder, chance)


def main() -> int:  # 1 if a copy was loaded different, ended with a traceback or hung
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", help="a bundled name or a folder, in place of a small one")
    parser.add_argument("--verbose", action="store_true", help="say what each refusal says")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts, bad = collections.Counter(), []
    with tempfile.TemporaryDirectory() as place:
        source, folder = Path(place) / "source", Path(place) / "network"
        if options.network:
            bundled = PRETRAINED / options.network
            shutil.copytree(bundled if bundled.is_dir() else options.network, source)
        else:
            small_run.network().save_pretrained(source)
        original = load_network("deraining", source)
        load = Loader(original)
        for n in range(options.count):
            kind = KINDS[n % len(KINDS)]
            mutate(source, folder, kind, f"{options.seed} {n}")
            what, message = load(folder)
            if what == "HUNG":
                load.stop()
            counts[kind, what] += 1
            line = f"{n} {kind.__name__}: {what} {message}"[:250]
            if what in OUTCOMES[2:]:
                bad.append(line)
            if options.verbose:
                print(line.encode("ascii", "backslashreplace").decode(), flush=True)
        load.stop()
    print(f"{'':34}" + "".join(f"{what:>11}" for what in OUTCOMES))
    for kind in KINDS:
        print(
            f"{kind.__name__.replace('_', ' '):34}" + "".join(f"{counts[kind, what] or '-':>11}" for what in OUTCOMES)
        )
    total = {what: sum(counts[kind, what] for kind in KINDS) for what in OUTCOMES}
    print(f"{'all ' + str(options.count):34}" + "".join(f"{total[what] or '-':>11}" for what in OUTCOMES))
    if bad and not options.verbose:
        print(json.dumps(bad[:20], indent=1))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
