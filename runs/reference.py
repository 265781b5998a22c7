"""What runs/reference.sh calls: the steps of the reference model's training, one a verb."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from medisyn import recipe as recipes
from medisyn.training import reference, resident, shards, stages


def captions(recipe: Path, run: Path, folder: Path, changes: Sequence[str]) -> Path:
    """The wordings of every training image of the shards in a folder, as word pieces: RUN/captions.npz."""
    settings, path = recipes.read(recipe, changes), run / "captions.npz"
    if path.is_file():
        return path
    known = [r for r in shards.known(folder) if r.split == "train"]
    return resident.write_captions(path, known, stages.reader(run).tokenizer, settings.seed, settings.dit.captions,
                                   settings.dit.drop_fact)


def text(recipe: Path, run: Path, collection: Path, changes: Sequence[str]) -> None:
    """The text encoder, trained on the captions of a collection: RUN/text. Given again, it goes on from where it stopped."""
    from medisyn.data import records
    from medisyn.training import text as training
    from medisyn.training.run import Stage
    settings, stage = recipes.read(recipe, changes), Stage(run, "text")
    if not stage.finished():
        fitted = training.fit(stage, [r for r in records.read(collection) if r.split == "train"], settings.seed, settings.text)
        if fitted is None:
            raise SystemExit(1)
        stages.keep(stage, fitted[0], fitted[0].config)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, *places: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name)
        for place in places:
            one.add_argument(place, type=Path)
        one.add_argument("--set", dest="changes", action="append", default=[])
        return one
    one = verb("pack", "collection", "out")
    one.add_argument("--side", type=int, default=256)
    one.add_argument("--mib", type=float, default=34)
    one.add_argument("--limit", type=int, default=None)
    verb("text", "recipe", "run", "collection")
    verb("captions", "recipe", "run", "folder")
    one = verb("unpack", "recipe", "folder", "run")
    one.add_argument("--fewer", action="store_true")
    one = verb("go", "recipe", "run")
    one.add_argument("--minutes", type=float, default=22.0)
    one.add_argument("--call-seconds", type=float, default=540.0)
    one.add_argument("--home", type=Path, default=None)
    one.add_argument("--steps", type=int, default=24)
    verb("adopt", "home", "run")
    verb("join", "parts", "folder")
    told = parser.parse_args(words)
    if told.verb == "pack":
        made = shards.pack([told.collection], told.out, told.side, told.mib, limit=told.limit)
        print(f"{len(made)} shards in {told.out}, {sum(p.stat().st_size for p in made) / 2**20:.1f} MiB")
    elif told.verb == "text":
        text(told.recipe, told.run, told.collection, told.changes)
    elif told.verb == "captions":
        print(captions(told.recipe, told.run, told.folder, told.changes))
    elif told.verb == "unpack":
        print(shards.unpack(told.folder, told.run, recipes.read(told.recipe, told.changes).data.packed_side, fewer=told.fewer))
    elif told.verb == "go":
        settings = recipes.read(told.recipe, told.changes)
        reference.go(settings, told.run, told.minutes, told.call_seconds, told.home, told.steps)
    elif told.verb == "adopt":
        reference.adopt(told.home, told.run)
    else:
        print(shards.join(told.parts, told.folder))


if __name__ == "__main__":
    main()
