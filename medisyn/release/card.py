"""The model card: what a model knows, from which images, how well, and what it must not be used for.

Every figure in it is read from a file that a command wrote; nothing is typed in by hand.
"""

import json
from pathlib import Path

from medisyn.data import vocabulary
from medisyn.models import solver

FEW = 20  # patients
MEMORISING = "memorising.json"  # in a model folder: the signs that its training followed
LICENCES = {"CC-BY-4.0": (
    "Creative Commons Attribution 4.0 International", "https://creativecommons.org/licenses/by/4.0/legalcode")}


def write(folder: Path, figures: Path | None = None) -> Path:
    """Write README.md and LICENSE of a model folder; `figures`: a folder of *.md tables to include, by name."""
    folder = Path(folder)
    card = json.loads((folder / "medisyn.json").read_text(encoding="utf-8"))
    data = json.loads((folder / "training_data.json").read_text(encoding="utf-8"))
    title, address = LICENCES.get(card["licence"], (card["licence"], ""))
    (folder / "LICENSE").write_text(f"The weights in this folder are licensed under {title} ({card['licence']}).\n{address}\n"
                                    "The images that trained them keep their own licences: see README.md.\n", encoding="utf-8")
    path = folder / "README.md"
    signs = folder / MEMORISING
    parts = [*head(card, data, (folder / "recogniser").is_dir(), sorted(solver.read(folder))), *limits(data), *sources(data),
             *(memorising(json.loads(signs.read_text(encoding="utf-8"))) if signs.is_file() else []), *tables(figures)]
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def head(card: dict, data: list[dict], looks: bool, fewer: list[int]) -> list[str]:
    types = sorted({t for row in data for t in row["image_types"]}, key=list(vocabulary.IMAGE_TYPES).index)
    specialties = sorted({vocabulary.IMAGE_TYPES[t].specialty for t in types})
    own = (f" The denoiser guides itself: one network call a step at any guidance from 1 to {1 + card['guided']:g}."
           if card.get("guided") else "")
    again = (" A small recogniser, trained on the same images, looks at what was made: what it does not take for what was asked "
             "for is drawn again, three times at most, and the provenance says so.") if looks else ""
    between = ""
    if (card.get("guidance_from", 0.0), card.get("guidance_until", 1.0)) != (0.0, 1.0):
        between = f" between t = {card['guidance_from']:g} and {card['guidance_until']:g} (0 is noise, 1 the image)"
    between += "".join(f", for a {vocabulary.IMAGE_TYPES[kind].label} from {since:g}"
                       for kind, since in card.get("guidance_since", {}).items())
    if (along := card.get("guidance_along", 1.0)) != 1:
        between += f", {f'with {along:.0%} of' if along else 'without'} what only stretches the image (arXiv:2410.02416)"
    sampler = f"{card['sampler']}, {card['steps']} steps"
    if card["steps"] in fewer:
        sampler = f"coefficients fitted to the model ({solver.FILE}), {card['steps']} steps; others with {card['sampler']}"
    sampler += "".join(f"; {steps} steps with coefficients fitted to the model ({solver.FILE})"
                       for steps in fewer if steps != card["steps"])
    noise = f", noise of {card['texture']:g} added to the latent for texture" if card.get("texture") else ""
    begun = f"Taught from {card['base']}, with" if card.get("base") else "Trained from scratch on"
    return ["---", f"license: {card['licence'].lower()}", "library_name: medisyn", "pipeline_tag: text-to-image",
            "tags: [medical]", "---", "", f"# {card['name']}", "",
            f"Text to medical image at {card['image_size']} x {card['image_size']} pixels: {len(types)} image types of "
            f"{len(specialties)} specialties, one model.", "",
            "Image types: " + ", ".join(vocabulary.IMAGE_TYPES[t].label for t in types) + ".", "",
            f"{begun} {sum(row['n_images'] for row in data):,} images (the denoiser drew {card['n_images']:,}, repeats counted). "
            f"Sampled by default with {sampler}. Guidance {card['guidance']:g}{between}{noise}.{own}{again}", "",
            "```", "medisyn generate \"chest X-ray with bacterial pneumonia\" -n 4 --seed 0 -o out/first", "```", ""]


def limits(data: list[dict]) -> list[str]:
    """What to beware of: few patients are named, since a model repeats what it has seen often."""
    few = [f"{row['source']} ({row['n_patients']})" for row in data if row["n_patients"] < FEW]
    beware = f"Expect images close to the originals where few patients or groups were seen: {', '.join(few)}. " if few else ""
    return ["## What it is not for", "",
            "Not for diagnosis, not as evidence about any patient, not as a stand-in for real images in a clinical evaluation. "
            "Each image carries its provenance; keep it. The model repeats the populations and devices of its sources. "
            f"{beware}", ""]


def sources(data: list[dict]) -> list[str]:
    rows = ["| source | image types | training images | patients or groups | licence |", "|---|---|---|---|---|"]
    rows += [f"| {row['source']} | {', '.join(row['image_types'])} | {row['n_images']:,} | {row['n_patients']:,} | "
             f"{', '.join(row['licences'])} |" for row in data]
    return ["## Training images", "",
            "Split by patient, or by group of near duplicates (mirrored and turned ones too) where the source names no patient; no "
            "network was trained on the val or test split. `medisyn sources --json` gives each source's citation, address and the "
            "evidence for its licence; where that is \"to be confirmed at the origin\", confirm it before you build on it.",
            "", *rows, ""]


def memorising(signs: dict) -> list[str]:
    """What the training followed, and where it stood when its weights were kept."""
    def told(value: float | None, form: str) -> str:
        return "not measured" if value is None else format(value, form)
    return ["## Memorising, as training followed it", "",
            f"Held-out loss behind training loss: {told(signs['gap'], '+.1%')} (at most {signs['most_gap']:.0%}). "
            "Nearest-neighbour ratio of images made, to training over unseen ones, against that of unseen images: "
            f"{told(signs['nearest_ratio'], '.2f')} (1: they lie as unseen patients do; at least {signs['least_ratio']}, where "
            "they do not lie farther from training images than unseen ones: "
            f"{told(signs['nearest_distance'], '.2f')} times as far). "
            f"{signs['told'][0].upper()}{signs['told'][1:]}.", ""]


def tables(figures: Path | None) -> list[str]:
    if figures is None:
        return []
    found = []
    for path in sorted(Path(figures).glob("*.md")):
        found += [path.read_text(encoding="utf-8").strip(), ""]
    return ["## Figures", "", *found] if found else []
