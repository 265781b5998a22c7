"""The synthesizer: a prompt and a seed become an image with its provenance.

Every image is computed alone, so its pixels depend on prompt, seed and settings and on nothing that was
made beside it. What the grammar understood and what the network read are compared: where they differ,
or where the prompt holds words that nobody understood, the network reads the understood facts in plain
words instead, so that what is said to be understood is what is drawn.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medisyn import painters, samplers, shipped
from medisyn.cores import cores
from medisyn.data import completion, images, prompts, vocabulary
from medisyn.data.provenance import LOOKS, Drawn, Guarded, Provenance, Verdict
from medisyn.data.records import Record
from medisyn.data.understanding import Understanding, nearest_known
from medisyn.models import backends, solver
from medisyn.models.checkpoint import Model
from medisyn.models.recogniser import doubt
from medisyn.models.vae import gray
from medisyn.painters import Rested

DRAWS = 4   # images that are made of one seed at most, where the model's recogniser does not see in them what was asked for
TRIES = 4   # images that are made of one seed before it is given up, where a guard blocks them
Accept = Callable[[Sequence[np.ndarray], Sequence[str | None]], list[Verdict]]  # images (C, H, W) in [-1, 1], image types


@dataclass(frozen=True)
class Synthetic:
    """One image made: float32 (C, H, W) in [-1, 1], C 1 for gray image types, and its record."""

    image: np.ndarray
    record: Record
    there: bool = False   # it was read from the collection that it goes to

    @property
    def picture(self) -> Image.Image:
        """As an 8-bit picture."""
        return images.to_picture(self.image)


@dataclass(frozen=True)
class Refused:
    """An image that was not made: all that came of its seed was too alike to a training image."""

    how: Provenance                # as it was asked for
    verdicts: tuple[Verdict, ...]  # of each try

    @property
    def reason(self) -> str:
        """In a sentence."""
        worst = max(self.verdicts, key=lambda v: v.likeness - v.limit)
        return (f"seed {self.how.seed} of {self.how.prompt!r} was refused: {len(self.verdicts)} tries, each too alike to a "
                f"training image (likeness {worst.likeness:.1f}, limit {worst.limit:.1f}); try other seeds or a lower guidance")


@dataclass(frozen=True)
class Plan:
    """What a prompt was understood to ask for, and what to be told about it."""

    prompt: str
    understood: Understanding
    read_as: str
    warnings: tuple[str, ...]


class Synthesizer:
    """A model ready to make images. `medisyn.load()` gives the one that ships."""

    def __init__(self, model: Model | Rested, version: str, backend: str = backends.DEFAULT):
        self.model, self.version, self.backend = model, version, backend
        self.painter = painters.of(model, backend)

    def plan(self, prompt: str) -> Plan:
        """Understand a prompt; decide the sentence that the network reads."""
        understood = prompts.understand(prompt, self.model.support, self.painter.words)
        warnings = []
        if understood.image_type is None:
            known = ", ".join(vocabulary.IMAGE_TYPES[t].label for t in self.image_types)
            near = nearest_words(understood)
            warnings.append(f"no image type was understood in {prompt!r}{near}; this model knows {known}")
        elif understood.image_type not in self.image_types:
            known = ", ".join(vocabulary.IMAGE_TYPES[t].label for t in self.image_types)
            warnings.append(f"{vocabulary.IMAGE_TYPES[understood.image_type].label} was never trained on; this model knows {known}")
        elif understood.support == 0:
            warnings.append("no training image shows this combination; the nearest known one is: "
                            f"{nearest_known(understood, self.model.support)}")
            if self.scratch and (unlearnt := completion.unlearnt(understood, self.model.support)):
                warnings[-1] += f"; not drawn, as none of that type shows it: {', '.join(unlearnt)}"
        if understood.image_type is None:
            return Plan(prompt, understood, prompt, tuple(warnings))
        if understood.also:
            taken, *others = (vocabulary.IMAGE_TYPES[t].label for t in (understood.image_type, *understood.also))
            warnings.append(f"{prompt!r} names no image type; it is drawn as {taken}, of which there are most training images "
                            f"of this; name {' or '.join(others)} for another")
        plain = prompts.canonical(record_of(understood, id="", file_name=""))
        return Plan(prompt, understood, self.painter.phrase(prompt, understood, plain), tuple(warnings))

    @property
    def scratch(self) -> bool:
        """Whether the model knows nothing but its own training images."""
        return isinstance(self.model, Model)

    @cached_property
    def image_types(self) -> tuple[str, ...]:
        """The image types it was trained on, in the vocabulary's order."""
        trained = {row[0] for row in self.model.support}
        return tuple(name for name in vocabulary.IMAGE_TYPES if name in trained)

    def generate(self, prompt: str, n: int = 1, seed: int = 0, steps: int | None = None, guidance: float | None = None,
                 sampler: str | None = None, progress: Callable[[int], None] = lambda done: None,
                 accept: Accept | None = None, block: bool = True) -> list[Synthetic]:
        """n images of a prompt, from seeds seed, seed + 1, ...; None takes the model's own setting.

        steps: 1 to 200. guidance: 1 follows the prompt plainly, 2 to 4 harder. sampler: a name in samplers.SAMPLERS,
        or fitted for a number of steps that the model has coefficients for; None takes those where there are any.
        accept: a guard; with `block` what it refuses is drawn again, and left out after TRIES, else only noted.
        """
        plan = self.plan(prompt)
        made = []
        asked = ((plan, self.settings(plan, seed + i, steps, guidance, sampler)) for i in range(n))
        for done, one in enumerate(self.many(asked, accept, block), 1):
            if isinstance(one, Synthetic):
                made.append(one)
            progress(done)
        return made

    def many(self, wanted: Iterable[tuple[Plan, Provenance]], accept: Accept | None = None,
             block: bool = True, look: bool = True) -> Iterator[Synthetic | Refused]:
        """Images in the order they are asked for: as many at once as there are cores, one torch thread an image, and a second
        one in guided steps where a core is idle.

        Two threads in one image are up to 80 times slower than one where anything else runs, and the last bit of a
        product depends on how many threads share it; images beside each other cost neither. look: False makes each image
        as it is described, whatever it shows.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        make = self.draw if accept is None else guarded(self, accept, block)
        make = make if look else self.make
        pool = ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield from pool.map(lambda one: make(*one), wanted)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    def settings(self, plan: Plan, seed: int, steps: int | None = None, guidance: float | None = None,
                 sampler: str | None = None) -> Provenance:
        """All that decides an image, complete."""
        card = self.model.card
        steps = card.steps if steps is None else steps
        guidance = card.guidance if guidance is None else guidance
        sampler = painters.sampler_of(self.model, steps) if sampler is None else sampler
        if not 1 <= steps <= 200:
            raise ValueError(f"steps should lie between 1 and 200, found {steps}; this model's own setting is {card.steps}")
        if not 0 <= guidance <= 20:
            raise ValueError(f"guidance should lie between 0 and 20, found {guidance}; this model's own setting is {card.guidance}")
        most = self.painter.most_guidance
        if most and not 1 <= guidance <= most:
            raise ValueError(f"guidance should lie between 1 and {most:g} for this model, which guides itself, found {guidance}")
        if sampler.startswith(solver.KIND):
            sampler = painters.solver_of(self.model, steps, sampler).name
        elif sampler not in samplers.SAMPLERS:
            raise ValueError(f"sampler {sampler!r} should be one of {', '.join((*samplers.SAMPLERS, solver.KIND))}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"a seed should lie between 0 and 2^63, found {seed}")
        read_as, style = self.completed(plan, root(plan.prompt, seed))
        return Provenance(plan.prompt, read_as, seed, steps, float(guidance), sampler, style, self.model.digest, card.name,
                          self.version, backend=None if self.backend == backends.DEFAULT else self.backend)

    def completed(self, plan: Plan, seed: int) -> tuple[str, int | None]:
        """The sentence that the network reads for a root, what the prompt leaves open drawn by it, and the style cluster."""
        found = completion.complete(plan.understood, self.model.support, seed, not self.scratch)
        if found.facts == plan.understood:
            return plan.read_as, found.style
        return self.painter.told(plan.understood, prompts.canonical(record_of(found.facts, id="", file_name=""))), found.style

    def another(self, plan: Plan, how: Provenance, why: str, k: int) -> Provenance:
        """The k-th new try of what `how` asks for; the 0-th is itself."""
        if k == 0:
            return how
        seed = another_seed(how.seed, why, k)
        read_as, style = self.completed(plan, root(plan.prompt, seed))
        return dataclasses.replace(how, seed=seed, read_as=read_as, style=style)

    def draw(self, plan: Plan, how: Provenance) -> Synthetic:
        """The image that `how` asks for; where the model's recogniser does not see in it what was asked for, it is drawn again.

        The first of at most DRAWS that is recognised is taken, else the one with the least doubt. The new seeds follow from
        the one that was asked for, so the same prompt and seed end in the same image.
        """
        network, understood = self.model.recogniser, plan.understood
        if network is None or understood.image_type not in network.config.image_types:
            return self.make(plan, how)
        findings = vocabulary.closed(understood.findings, understood.image_type, understood.view)
        best: tuple[float, int, bool, Synthetic] | None = None
        for k in range(DRAWS):
            one = self.make(plan, self.another(plan, how, "draw", k))
            image = torch.from_numpy(one.image).expand(3, -1, -1)
            right, total = doubt(network, image, understood.image_type, findings)
            if right or best is None or total < best[0]:
                best = total, k, right, one
            if right:
                break
        total, k, right, one = best
        made = dataclasses.replace(one.record.provenance, drawn=Drawn(right, round(total, 4), k, name_of(how)))
        return Synthetic(one.image, dataclasses.replace(one.record, provenance=made))

    @torch.no_grad()
    def make(self, plan: Plan, how: Provenance) -> Synthetic:
        """The one image that `how` describes."""
        card, image = self.model.card, self.painter.paint(how, root(how.prompt, how.seed))
        is_gray = plan.understood.image_type in vocabulary.IMAGE_TYPES and vocabulary.IMAGE_TYPES[plan.understood.image_type].gray
        image = gray(image[None])[0, :1] if is_gray else image
        name = name_of(how)
        record = record_of(plan.understood, id=name, file_name=f"images/{name}.png", text=how.prompt, source=card.name,
                           licence=card.licence, provenance=how)
        return Synthetic(image.contiguous().numpy(), record)

    def remake(self, how: Provenance) -> Synthetic:
        """The image of a provenance once more; ValueError when another model made it."""
        if how.model != self.model.digest:
            raise ValueError(f"the image was made by {how.model_name} ({how.model[:19]}...), this model is "
                             f"{self.model.card.name} ({self.model.digest[:19]}...); pass the right one with --model")
        if (how.backend or backends.DEFAULT) != self.backend:
            raise ValueError(f"the image was computed by {how.backend or backends.DEFAULT}, this model is computed by "
                             f"{self.backend}; load it with the backend of the image")
        understood = prompts.understand(how.prompt, self.model.support, self.painter.words)
        (again,) = self.many([(Plan(how.prompt, understood, how.read_as, ()), how)], look=False)
        return again


def guarded(maker: Synthesizer, accept: Accept, block: bool = True) -> Callable[[Plan, Provenance], Synthetic | Refused]:
    """`maker.make` under a guard, which is anyone's function; its verdict goes into the provenance.

    A blocked image is drawn again from a seed that follows from its own, so the same prompt and seed end in the same image.
    """
    def make(plan: Plan, how: Provenance) -> Synthetic | Refused:
        verdicts: list[Verdict] = []
        for k in range(TRIES):
            tried = maker.another(plan, how, "again", k)
            one = maker.draw(plan, tried)
            (verdict,) = accept([one.image], [one.record.image_type])
            if verdict.accepted or not block:
                said = Guarded("passed" if verdict.accepted else "flagged", verdict.likeness, verdict.limit, k, name_of(how),
                               verdict.guard)
                made = dataclasses.replace(one.record.provenance, guard=said)
                return Synthetic(one.image, dataclasses.replace(one.record, provenance=made))
            verdicts.append(verdict)
        return Refused(how, tuple(verdicts))
    return make


def root(prompt: str, seed: int) -> int:
    """What all that is random in an image follows from: two wordings of one meaning give two images from the same seed."""
    return int.from_bytes(hashlib.sha256(f"medisyn/root/{seed}/{prompt}".encode()).digest()[:8]) >> 2


def another_seed(seed: int, why: str, k: int) -> int:
    """The seed of the k-th new try: 62 bits that nobody counts up to."""
    return int.from_bytes(hashlib.sha256(f"medisyn/{why}/{seed}/{k}".encode()).digest()[:8]) >> 2


def load(model: Path | str | None = None, version: str = "", backend: str = backends.DEFAULT) -> Synthesizer:
    """A model as a synthesizer: a folder, the name of one that ships, or None for the one that ships as the default.

    backend: a name in `backends.BACKENDS`.
    """
    found = painters.load(shipped.folder(model))
    if isinstance(found, Model):
        backends.drop_weights(found, backend)   # nobody else has it
    return Synthesizer(found, version, backend)


def name_of(how: Provenance) -> str:
    """An image's id: 16 hex digits that depend on all that decides its pixels."""
    decisive = {name: value for name, value in how.as_dict().items() if name not in LOOKS}
    return hashlib.sha256(repr(sorted(decisive.items())).encode()).hexdigest()[:16]


def nearest_words(understood: Understanding) -> str:
    near = [word for words in understood.nearest.values() for word in words]
    return f" (did you mean {' or '.join(dict.fromkeys(near[:3]))}?)" if near else ""


def record_of(understood: Understanding, **more: object) -> Record:
    """An understanding as a record: what the image is labelled with."""
    u = understood
    return Record(image_type=u.image_type or "unknown", specialty=u.specialty, anatomy=u.anatomy, view=u.view,
                  technique=u.technique, laterality=u.laterality, findings=dict(u.findings), age_years=u.age_years,
                  sex=u.sex, **more)
