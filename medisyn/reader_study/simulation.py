"""Simulation: readers of a given skill play a study, for planning and to see that the analysis gives the truth back.

The model of signal detection with readers and cases as random effects (Roe and Metz 1997, Acad. Radiol. 4:298, one modality):
reader j sees of case k the evidence  x = s d_j / 2 + (case_sd c_k + e_jk) / sqrt(1 + case_sd^2),  s = +1 where the signal is
there and -1 where it is not, d_j normal around d' with reader_sd, c_k and e_jk standard normal. So a reader's own d' is d_j,
whatever case_sd; it only makes readers err together.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import norm

from medisyn.reader_study import design, responses
from medisyn.reader_study.design import Study, Truth
from medisyn.reader_study.responses import Response

LEVELS = np.array([0.25, 0.55, 0.9, 1.3])          # evidence beyond the criterion at which confidence rises
CUTS = {3: np.array([-0.5, 0.5]), 5: np.array([-1.2, -0.4, 0.4, 1.2])}  # evidence between the answers of a scale


@dataclass(frozen=True)
class Skill:
    dprime: float              # mean over readers; 0: they cannot tell
    criterion: float = 0.0     # above 0: rather "real"
    reader_sd: float = 0.2     # of d' between readers
    case_sd: float = 0.5       # of what a case adds for all readers, in units of what one reading adds

    def check(self) -> None:
        for name in ("reader_sd", "case_sd"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"--{name.replace('_', '-')}: expected 0 to 10, found {getattr(self, name)}")
        if abs(self.dprime) > 10 or abs(self.criterion) > 10:
            raise ValueError(f"expected d' and criterion of -10 to 10, found {self.dprime} and {self.criterion}")


def evidence(signal: np.ndarray, case: np.ndarray, readers: int, skill: Skill, rng: np.random.Generator, *,
             images: int = 1, draws: int = 1) -> np.ndarray:
    """What readers see: signal (n,) of +1 and -1, case (n,) which case each showing shows -> float32 (draws, readers, n).

    images: 2 where two stand side by side and the difference is what counts: d' is then sqrt(2) times as large.
    """
    own = np.float32(skill.dprime) + np.float32(skill.reader_sd) * rng.standard_normal((draws, readers, 1), np.float32)
    noise = rng.standard_normal((draws, readers, len(signal)), np.float32)
    if skill.case_sd:
        shared = rng.standard_normal((draws, 1, int(case.max()) + 1), np.float32)[:, :, case]
        noise = (noise + np.float32(skill.case_sd) * shared) / np.float32(np.sqrt(1 + skill.case_sd**2))
    return own * signal.astype(np.float32) * np.float32(np.sqrt(images) / 2) + noise


def expected(skill: Skill) -> dict[str, float]:
    """The true figures of the population of readers and cases. accuracy: of as many signals as not; pair: of two alternatives."""
    spread = np.sqrt(1 + skill.reader_sd**2 / 4)
    hit = float(norm.cdf((skill.dprime / 2 - skill.criterion) / spread))
    reject = float(norm.cdf((skill.dprime / 2 + skill.criterion) / spread))
    area = float(norm.cdf(skill.dprime / np.sqrt(2 + skill.reader_sd**2)))
    return {"dprime": skill.dprime, "criterion": skill.criterion, "sensitivity": hit, "specificity": reject,
            "accuracy": (hit + reject) / 2, "auc": area, "pair_accuracy": area}


def play(study: Study, out: Path, skill: Skill, readers: int, seed: int = 0) -> Study:
    """A copy of the study in `out` with the responses of simulated readers.

    The signal is: synthetic (real-or-synthetic, two-alternatives); that the sentence fits (alignment); real (quality).
    """
    skill.check()
    out = Path(out)
    if not 1 <= readers <= 99:
        raise ValueError(f"--readers: expected 1 to 99, found {readers}")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder with -o")
    shutil.copytree(study.folder / "images", out / "images")
    truth = design.truth(study)
    keys = tuple(f"reader-{k:02d}" for k in range(1, readers + 1))
    title = f"{study.title} (simulated readers, d' {skill.dprime:g})"
    copy = replace(study, folder=out, readers=keys, title=title)
    design.write(copy, truth)
    design.whole(out / "readers.json", dict.fromkeys(keys))
    responses.extend(copy, answered(copy, truth, skill, np.random.default_rng(seed)))
    return copy


def answered(study: Study, truth: dict[str, Truth], skill: Skill, rng: np.random.Generator) -> list[Response]:
    """The responses of all readers of a study, each in their order."""
    names = [case.id for case in study.cases]
    shows = {name: truth[name].repeat_of or name for name in names}
    first = {name: k for k, name in enumerate(sorted(set(shows.values())))}
    case = np.array([first[shows[name]] for name in names])
    signal = np.array([signal_of(study.design, truth[name]) for name in names])
    seen = evidence(signal, case, len(study.readers), skill, rng, images=study.question.images)[0]
    found = []
    for row, reader in enumerate(study.readers):
        evident = dict(zip(names, seen[row], strict=True))
        for position, name in enumerate(design.order(study, reader)):
            answer, confidence = answer_of(study, truth[name], float(evident[name]), skill)
            seconds = round(float(np.exp(rng.normal(2.0, 0.5))), 1)
            found.append(Response(study.id, reader, name, position, answer, confidence, (), "", seconds,
                                  "2000-01-01T00:00:00.000+00:00"))
    return found


def signal_of(kind: str, truth: Truth) -> int:
    """+1 where the signal is there."""
    there = {"real-or-synthetic": truth.arm == "synthetic", "two-alternatives": True, "alignment": truth.arm != "mismatch",
             "quality": truth.arm == "real"}[kind]
    return 1 if there else -1


def answer_of(study: Study, truth: Truth, seen: float, skill: Skill) -> tuple[str | int, int | None]:
    """An answer and its confidence, 1 to 5, from the evidence."""
    answers, beyond = study.question.answers, seen - skill.criterion
    if study.design == "two-alternatives":
        beyond = seen
        answer: str | int = truth.answer if beyond > 0 else "left" if truth.answer == "right" else "right"
    elif study.design == "real-or-synthetic":
        answer = "synthetic" if beyond > 0 else "real"
    else:
        answer = answers[int(np.searchsorted(CUTS[len(answers)], beyond))]
    sure = 1 + int(np.searchsorted(LEVELS, abs(beyond)))
    return answer, sure if study.question.confidence else None
