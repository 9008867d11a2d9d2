"""``vae-lab heal``: repair a grey merge with the statistics of its parents. An experiment; see docs/heal.md."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch

from vae_lab.autoencoders import Autoencoder, VaeFile, open_vae
from vae_lab.checkup import Checkup, check_weights
from vae_lab.checkup.findings import HEALTHY
from vae_lab.cli.arguments import Commands
from vae_lab.cli.console import progress_bar, say
from vae_lab.errors import FileError, HostError
from vae_lab.identity import Merge, Sketch, explain_merge, sketch_of_file
from vae_lab.library.folders import Walk, real_path
from vae_lab.repair.heal import PhotoTest, compare_on_photos, decode_photos, heal, reference, stored_dtype, write_healed
from vae_lab.repair.writing import check_target

__all__ = ["add_heal"]

_NOT_HEALTHY = 1
_SHOWN = ("white", "black", "contrast retained", "contrast retained in a photo", "colour retained", "overall")


def add_heal(commands: Commands) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("heal", help="repair a grey merge with the statistics of its parents (an experiment)")
    command.add_argument("file", type=Path, metavar="FILE", help="a VAE, or a checkpoint with one; it is not changed")
    command.add_argument(
        "--parents", type=Path, nargs="+", metavar="PATH",
        help="files and folders among which the parents are (default: the folder of FILE)",
    )  # fmt: skip
    command.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="the new VAE, named .safetensors"
    )
    command.set_defaults(function=_heal)


def _heal(args: argparse.Namespace) -> int:
    check_target(args.out)
    absent = [path for path in args.parents or () if not path.exists()]
    if absent:
        raise HostError(f"{absent[0]} does not exist")
    with open_vae(args.file) as file:
        before = check_weights(file.assemble(file.state_dict()), file.family_hint)
        if before.verdict.status == HEALTHY:
            say(f"{args.file.name} is healthy: there is nothing to repair, so nothing was written.")
            return 0
        merge, paths = _parents(file, args.parents or [args.file.absolute().parent])
        healed, main = _healed(file, merge, paths)
        after = check_weights(healed, file.family_hint)
        tested = compare_on_photos(decode_photos(healed), decode_photos(main))
        say(f"{args.file.name} = {merge.sentence}")
        for line in (*_numbers(before, after), *_photo_lines(tested, merge.parents[0].name)):
            say(f"  {line}")
        if after.verdict.status != HEALTHY or not tested.passed:
            say(f"It cannot be repaired well enough, so nothing was written. {_better(args, file, merge, paths)}")
            return _NOT_HEALTHY
        with progress_bar(args.out.name, "B", scale=True) as progress:
            write_healed(file, healed, args.out, progress=progress)
        say(str(args.out))
        say(f"This is an experiment: colours can be shifted, and detail is lost. {_better(args, file, merge, paths)}")
    return 0


def _parents(file: VaeFile, places: Iterable[Path]) -> tuple[Merge, dict[str, str]]:
    """The merge, and the paths of the files among which its parents are.

    Raises:
        HostError: it is not certain that the VAE was made from VAEs in ``places``.
    """
    own = real_path(file.path)
    paths = {name: path for name, path in Walk().find_all(places) if real_path(path) != own}
    sketches: dict[str, Sketch] = {}
    with progress_bar("looking for parents", "file") as progress:
        for number, (name, path) in enumerate(paths.items()):
            progress(number, len(paths), name)
            sketch = _sketch(path)
            if sketch is not None:
                sketches[name] = sketch
    merge = explain_merge(sketch_of_file(file), sketches)
    if merge is None or not merge.certain:
        found = f"it is related to {merge.names}, but which was made from which is not certain" if merge else ""
        reason = found or f"it is no merge of the {len(sketches)} VAEs that were compared"
        raise HostError(f"{file.path} cannot be repaired: {reason}. Name its parents, or their folder, with --parents.")
    return merge, paths


def _sketch(path: str) -> Sketch | None:
    """None if there is no VAE in the file."""
    try:
        with open_vae(path) as file:
            return sketch_of_file(file)
    except FileError:
        return None


def _healed(file: VaeFile, merge: Merge, paths: dict[str, str]) -> tuple[Autoencoder, Autoencoder]:
    """The repaired VAE, with weights as they will be stored, and its main parent."""
    with open_vae(paths[merge.parents[0].name]) as first:
        main = first.load()
    parents = [(reference(main), merge.parents[0].weight)]
    for parent in merge.parents[1:]:
        with open_vae(paths[parent.name]) as other:
            parents.append((reference(other.load(family=main.family)), parent.weight))
    healed = file.load(family=main.family)
    heal(healed, parents)
    return healed.to(dtype=stored_dtype(file)).to(dtype=torch.float32), main


def _numbers(before: Checkup, after: Checkup) -> list[str]:
    lines = [f"verdict: {before.verdict.status} -> {after.verdict.status}"]
    values = {evidence.name: evidence for evidence in after.measured}
    for old in before.measured:
        if old.name in values and old.name.partition(": ")[2] in _SHOWN:
            unit = f" {old.unit}" if old.unit else ""
            lines.append(f"{old.name}: {old.value:.2f} -> {values[old.name].value:.2f}{unit} (right: {old.wanted})")
    return lines


def _photo_lines(tested: PhotoTest, main: str) -> list[str]:
    lines = []
    for way, found, own in (
        ("decoder only", tested.decoded, tested.decoded_by_parent),
        ("encoder and decoder", tested.round_trip, tested.round_trip_by_parent),
    ):
        if found is not None and own is not None:
            lines.append(
                f"photos, {way}: {found:.1f} dB from {main}, which is itself {own:.1f} dB from the photos: "
                f"{'passed' if found > own else 'failed'}"
            )
    return lines


def _better(args: argparse.Namespace, file: VaeFile, merge: Merge, paths: dict[str, str]) -> str:
    main = paths[merge.parents[0].name]
    if file.layout.kind == "checkpoint":
        return f"A healthy VAE from elsewhere is better: vae-lab bake {args.file} {main} -o OUT, for example."
    return f"A healthy VAE from elsewhere is better, for example {main}."
