"""Define `bigbox cosmoflow`, whose work is in bigbox.cosmoflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.cli.values import add_choice, add_value, number, whole
from bigbox.errors import BadInput

if TYPE_CHECKING:
    from bigbox.cosmoflow.maps import Maps
    from bigbox.networks.model import Model

TEXT = """\
Learns to compress maps of dark matter 32 times by flow matching (CosmoFlow, Kannan et al. 2025),
and uses what it has learned. An encoder gives a latent of C channels, 16 times coarser. A velocity
network, told the latent, leads from white noise to the map; the further it is, the fewer channels
it sees, so that channels come to stand for scales.

MAPS is a folder of `bigbox cosmoflow maps`, or a file Maps_Mcdm_*.npy of CAMELS with --parameters
params_*.txt. Simulations, not maps, are split: 70 % train, 15 % validate, 15 % test.

example:  bigbox cosmoflow maps maps --simulations 200
          bigbox cosmoflow train maps --out model --within 0.75
          bigbox cosmoflow train maps --out model --kind vae --within 0.1
          bigbox cosmoflow evaluate model maps --out evaluation
          bigbox cosmoflow encode model maps latents.safetensors
          bigbox cosmoflow decode model latents.safetensors decoded.npy --seed 1
          bigbox cosmoflow infer model maps --out inference
          bigbox cosmoflow interpolate model maps --out channels
          bigbox cosmoflow maps warm --simulations 20 --seed 5000 --warm 0.2
          bigbox cosmoflow anomaly model maps warm --out anomaly
next:     bigbox cosmoflow COMMAND --help
"""

SUMMARY = "compress maps by flow matching, and use their latents"
_MAPS = "folder of bigbox cosmoflow maps, or Maps_Mcdm_*.npy of CAMELS"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, text, add, work in (
        ("maps", "simulate maps over Omega_m and sigma8", _add_maps, _maps),
        ("train", "train the model, or the VAE beside it", _add_train, _train),
        ("evaluate", "decoded maps against the truth: one page", _add_evaluate, _evaluate),
        ("encode", "maps to latents", _add_encode, _encode),
        ("decode", "latents to maps", _add_decode, _decode),
        ("infer", "Omega_m and sigma8, from summary, P(k) and maps: one page", _add_infer, _infer),
        ("interpolate", "which channel is which scale: one page", _add_interpolate, _interpolate),
        ("anomaly", "tell warm dark matter from cold: one page", _add_anomaly, _anomaly),
    ):
        own = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(own)
        own.set_defaults(work=work)


def run(options: argparse.Namespace) -> int:
    """Run one of the commands."""
    work: Callable[[argparse.Namespace], None] = options.work
    work(options)
    return 0


def _add_model(parser: argparse.ArgumentParser, *, maps: bool = True) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="folder of the model")
    if maps:
        _add_source(parser)
    _add_threads(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("maps", metavar="MAPS", type=Path, help=_MAPS)
    text = "params_*.txt of CAMELS: a row for each simulation, Omega_m and sigma8 first"
    add_value(parser, "--parameters", "TXT", Path, text)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    add_value(parser, "--threads", "N", whole(1, 4096), "of the CPU (all cores)")
    add_value(parser, "--device", "D", str, "cpu, cuda (default: a GPU if any)", "auto")


def _add_page(parser: argparse.ArgumentParser, out: str) -> None:
    add_value(parser, "--out", "DIR", Path, f"folder of the page ({out})", Path(out))


def _add_calls(parser: argparse.ArgumentParser) -> None:
    add_value(parser, "--calls", "K", whole(1, 4096), "of the velocity network, a map (30)", 30)
    add_value(parser, "--seed", "S", whole(0, 2**63), "of the noise (0)", 0)


def _add_solver(parser: argparse.ArgumentParser) -> None:
    text = "euler (default); heun, of half as many steps; adaptive, which chooses its calls"
    add_choice(parser, "--solver", ("euler", "heun", "adaptive"), text)


def _add_maps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="folder; the same command goes on")
    value = partial(add_value, parser)
    value("--simulations", "N", whole(1, 10**5), "how many (200); may be raised later", 200)
    value("--edge", "n", whole(16), "pixels on an edge of a map (64)", 64)
    value("--box-size", "L", number(0, above=True), "of the simulations, Mpc/h (25)", 25.0)
    value("--slabs", "K", whole(1), "on each axis of a box, a map each (5)", 5)
    value("--grid", "N", whole(8), "particles on a side (64)", 64)
    value("--steps", "K", whole(1), "of a simulation (20)", 20)
    value("--mesh-factor", "F", whole(1, 8), "mesh points for each particle, on a side (1)", 1)
    value("--redshift", "Z", number(0), "of the output (0)", 0.0)
    value("--omega-m", "X", number(0, above=True), "least and most", [0.1, 0.5], nargs=2)
    value("--sigma8", "X", number(0, above=True), "least and most", [0.6, 1.0], nargs=2)
    value("--seed", "S", whole(0), "of the first simulation (0)", 0)
    value("--warm", "KEV", number(0, above=True), "mass of warm dark matter, keV (cold)")
    _add_threads(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--out", metavar="MODEL", type=Path, required=True, help="of the model")
    add_choice(parser, "--kind", ("flow", "vae"), "the model, or its baseline")
    add_choice(parser, "--preset", ("small", "paper"), "networks and recipe; paper needs a GPU")
    value, above_0 = partial(add_value, parser), number(0.0, above=True)
    value("--latent", "C", whole(1, 1024), "channels (8)")
    value("--within", "H", above_0, "end within so many hours, all starts together")
    value("--hours", "H", above_0, "stop after this time; the same command goes on")
    value("--steps", "N", whole(1, 10**8), "of the optimiser")
    value("--batch", "N", whole(1, 4096), "maps a step")
    value("--rate", "R", above_0, "highest learning rate")
    value("--seed", "S", whole(0, 2**31), "(0)", 0)
    _add_threads(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    add_value(parser, "--maps-count", "N", whole(2), "of the test (all)")
    _add_calls(parser)
    _add_solver(parser)
    _add_page(parser, "evaluation")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("out", metavar="LATENTS", type=Path, help="file to make, .safetensors")
    parts = ("all", "training", "validation", "test")
    add_choice(parser, "--part", parts, "which maps, of the model's split")
    add_choice(parser, "--kind", ("flow", "vae"), "which encoder")


def _add_decode(parser: argparse.ArgumentParser) -> None:
    _add_model(parser, maps=False)
    parser.add_argument("latents", metavar="LATENTS", type=Path, help="of bigbox cosmoflow encode")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to make, .npy")
    add_choice(parser, "--kind", ("flow", "vae"), "which decoder")
    _add_calls(parser)
    _add_solver(parser)


def _add_infer(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    value = partial(add_value, parser)
    value("--seeds", "N", whole(1, 100), "of each estimator (3)", 3)
    value(
        "--epochs", "N", whole(1, 10**4), "of the ResNet-18; the others 15 times as many (12)", 12
    )
    value("--width", "N", whole(8, 512), "of its first stage; 64 in He et al. 2016 (16)", 16)
    names = ("summary", "spectrum", "maps")
    text = "what from (all)"
    parser.add_argument("--from", dest="estimators", choices=names, nargs="+", default=names,
                        help=text)  # fmt: skip
    _add_page(parser, "inference")


def _add_interpolate(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    value = partial(add_value, parser)
    value("--pairs", "N", whole(1, 10**4), "of maps (32)", 32)
    value("--shares", "N", whole(1, 100), "steps from the first to the second (2)", 2)
    _add_calls(parser)
    _add_page(parser, "channels")


def _add_anomaly(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("strange", metavar="STRANGE", type=Path, help="maps of another kind")
    add_value(parser, "--count", "N", whole(2, 10**5), "maps of each kind (150)", 150)
    _add_calls(parser)
    _add_page(parser, "anomaly")


def _threads(options: argparse.Namespace) -> None:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)


def _opened(options: argparse.Namespace, kind: str = "flow") -> Model:
    """Load a model, onto the device that was asked for."""
    from bigbox.cosmoflow.model import load
    from bigbox.devices import find_device

    _threads(options)
    where = find_device(options.device)
    model = load(options.model, kind)
    model.network.to(where)
    return model


def _read(options: argparse.Namespace, model: Model | None = None) -> Maps:
    """Read the maps; see that the model is for them."""
    from bigbox.cosmoflow.maps import load_maps
    from bigbox.cosmoflow.model import check_maps

    maps = load_maps(options.maps, options.parameters)
    if model is not None:
        check_maps(model.card, maps, str(options.model))
    return maps


def _made_of(options: argparse.Namespace, model: Model, maps: Maps) -> dict[str, Any]:
    return {
        "model": f"{options.model} ({model.sha256[:12]}), {model.card['preset']}",
        "maps": f"{options.maps}: {len(maps)}, {maps.about['source']}",
        "command": " ".join(["bigbox", *sys.argv[1:]]),
    }


def _maps(options: argparse.Namespace) -> None:
    from bigbox.cosmoflow.simulated import MapOptions, make_maps

    _threads(options)
    names = ("out", "simulations", "edge", "slabs", "grid", "steps", "mesh_factor", "redshift")
    asked = MapOptions(
        **{name: getattr(options, name) for name in (*names, "seed", "warm")},
        side=options.box_size,
        omega_m=tuple(options.omega_m),
        sigma8=tuple(options.sigma8),
    )
    run = make_maps(asked, options.device)
    print(f"{options.out}: {asked.simulations} simulations, {run} of them run now")
    print(f"next: bigbox cosmoflow train {options.out} --out model --within 0.75")


def _train(options: argparse.Namespace) -> None:
    from bigbox.cosmoflow.train import FlowTrainOptions, train_maps

    maps = _read(options)
    names = ("out", "kind", "preset", "latent", "steps", "batch", "rate", "seed", "device",
             "threads", "hours", "within")  # fmt: skip
    train_maps(maps, FlowTrainOptions(**{name: getattr(options, name) for name in names}))


def _evaluate(options: argparse.Namespace) -> None:
    from bigbox.analysis.report.page import made_folder
    from bigbox.cosmoflow.evaluation import evaluate_maps
    from bigbox.cosmoflow.page import evaluation

    models = {"flow": _opened(options)}
    maps = _read(options, models["flow"])
    if (options.model / "vae.json").exists():
        models["vae"] = _opened(options, "vae")
    with made_folder(options.out):
        how = (options.maps_count, options.calls, options.seed, options.solver)
        found = evaluate_maps(models, maps, *how)
        evaluation(options.out, found, _made_of(options, models["flow"], maps))
    for one in found["checks"]:
        print(f"{'kept' if one['kept'] else 'MISSED':7}{one['name']}: {one['found']}")
    print(f"velocity error: {found['velocity error']:.4f}")
    print(f"report: {options.out / 'index.html'}")


def _encode(options: argparse.Namespace) -> None:
    from bigbox.cosmoflow.coding import encode, save_latents
    from bigbox.cosmoflow.maps import Split

    if options.out.exists():
        raise BadInput(f"{options.out}: exists already; choose another name or remove it first")
    model = _opened(options, options.kind)
    maps = _read(options, model)
    if options.part != "all":
        maps = maps.of(getattr(Split.of_card(model.card), options.part))
    latents = encode(model, maps)
    save_latents(options.out, latents)
    ratio = maps.values[0].size / latents.latent[0].size
    print(f"{options.out}: {len(maps)} maps, {ratio:g} times fewer numbers")
    print(f"next: bigbox cosmoflow decode {options.model} {options.out} decoded.npy")


def _decode(options: argparse.Namespace) -> None:
    import io

    import numpy as np

    from bigbox.cosmoflow.coding import decode, load_latents
    from bigbox.store.durable import DISK, explained

    if options.out.exists():
        raise BadInput(f"{options.out}: exists already; choose another name or remove it first")
    model = _opened(options, options.kind)
    latents = load_latents(options.latents, model, options.model)
    made = decode(
        model, latents.latent, seed=options.seed, calls=options.calls, solver=options.solver
    )
    file = io.BytesIO()
    np.save(file, made)
    with explained(options.out, len(file.getbuffer())):
        DISK.write_atomic(options.out, file.getvalue())
    print(f"{options.out}: {len(made)} maps of {made.shape[1]}^2, {latents.about['units']}")


def _infer(options: argparse.Namespace) -> None:
    from bigbox.analysis.report.page import made_folder
    from bigbox.cosmoflow.inference import InferOptions, infer
    from bigbox.cosmoflow.page import inference, inference_table

    model = _opened(options)
    maps = _read(options, model)
    asked = InferOptions(options.seeds, options.epochs, options.width, options.estimators)
    with made_folder(options.out):
        found = infer(model, maps, asked)
        inference(options.out, found, _made_of(options, model, maps))
    _print_table(inference_table(found), options.out)


def _interpolate(options: argparse.Namespace) -> None:
    from bigbox.analysis.report.page import made_folder
    from bigbox.cosmoflow.interpolation import interpolate
    from bigbox.cosmoflow.maps import Split
    from bigbox.cosmoflow.page import channel_table, interpolation

    model = _opened(options)
    maps = _read(options, model)
    test = maps.of(Split.of_card(model.card).test)
    with made_folder(options.out):
        found = interpolate(model, test, options.pairs, options.shares, options.calls, options.seed)
        interpolation(options.out, found, _made_of(options, model, maps))
    _print_table(channel_table(found), options.out)


def _anomaly(options: argparse.Namespace) -> None:
    from bigbox.analysis.report.page import made_folder
    from bigbox.cosmoflow.anomaly import anomalies
    from bigbox.cosmoflow.maps import load_maps
    from bigbox.cosmoflow.model import check_maps
    from bigbox.cosmoflow.page import anomaly

    model = _opened(options)
    maps, strange = _read(options, model), load_maps(options.strange)
    check_maps(model.card, strange, str(options.model))
    with made_folder(options.out):
        found = anomalies(model, maps, strange, options.count, options.calls, options.seed)
        anomaly(options.out, found, _made_of(options, model, maps))
    rows = [[name, f"{one['area']:.3f}"] for name, one in found["scores"].items()]
    _print_table([["score", "area under the curve"], *rows], options.out)


def _print_table(table: list[list[str]], out: Path) -> None:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print(f"report: {out / 'index.html'}")
