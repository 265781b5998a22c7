"""Questions: what each design of a study asks, the answers it takes, and the kinds of mark a reader can set on an image."""

from dataclasses import asdict, dataclass

CONFIDENCE = ("guess", "unsure", "rather sure", "sure", "certain")  # 1 to 5
MARKS = {  # the error taxonomy: kind -> what a reader reads
    "anatomy": "anatomy that cannot be",
    "finding": "finding wrong or missing",
    "texture": "texture, noise or sharpness",
    "border": "border, edge or contour",
    "symmetry": "side or symmetry",
    "device": "device, text or marker",
    "colour": "colour, stain or contrast",
    "other": "something else"}


@dataclass(frozen=True)
class Question:
    """What is asked of every case of a study."""

    text: str
    choices: tuple[tuple[str | int, str], ...]  # (answer as it is stored, its words), in the order of keys 1, 2, ...
    confidence: tuple[str, ...] = ()            # the words of 1, 2, ...; empty: not asked
    images: int = 1                             # shown side by side
    sentence: bool = False                      # whether the case's sentence is shown
    scale: str = "nominal"                      # of the answers: nominal or ordinal
    marks: tuple[tuple[str, str], ...] = tuple(MARKS.items())

    @property
    def answers(self) -> tuple[str | int, ...]:
        return tuple(value for value, _ in self.choices)

    def as_dict(self) -> dict:
        """For study.json: lists of objects, as a page wants them."""
        return asdict(self) | {"choices": [{"value": value, "label": label} for value, label in self.choices],
                               "marks": [{"kind": kind, "label": label} for kind, label in self.marks],
                               "confidence": list(self.confidence)}


def from_dict(row: dict) -> Question:
    """A Question from study.json."""
    return Question(**row | {"choices": tuple((c["value"], c["label"]) for c in row["choices"]),
                             "marks": tuple((m["kind"], m["label"]) for m in row["marks"]),
                             "confidence": tuple(row["confidence"])})


DESIGNS = {
    "real-or-synthetic": Question("Is this image real or synthetic?", (("real", "Real"), ("synthetic", "Synthetic")), CONFIDENCE),
    "two-alternatives": Question("One of the two images is synthetic. Which?", (("left", "Left"), ("right", "Right")), CONFIDENCE,
                                 images=2),
    "alignment": Question("Does the image show what the sentence says?", (("no", "No"), ("partly", "Partly"), ("yes", "Yes")),
                          CONFIDENCE, sentence=True, scale="ordinal"),
    "quality": Question("How well would this image pass as a routine image of its kind?",
                        ((1, "Not at all"), (2, "Poorly"), (3, "Fairly"), (4, "Well"), (5, "Fully")), scale="ordinal")}
SCORES = {"no": 0.0, "partly": 0.5, "yes": 1.0}  # of an answer about alignment
