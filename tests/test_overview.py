import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisyn.data import census, check, duplicates, images, ledger, overview, pictures, records, vocabulary
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record

MADE = Provenance(prompt="a chest", read_as="Chest X-ray.", seed=0, steps=1, guidance=1.0, sampler="euler", style=None,
                  model="sha256:00", model_name="m", version="0")
BASE = Record(id="clinic/0", file_name="images/clinic/0.png", image_type="chest_xray", specialty="radiology", source="clinic",
              licence="CC0-1.0", split="train", patient="p0")
VOID = {"meta", "img", "link", "br"}


class Tags(HTMLParser):
    """Fails on a tag that is not closed; gathers what is loaded and what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in VOID and tag not in ("tr", "th", "td", "p", "li"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("tr", "th", "td", "p", "li"):
            assert self.open.pop() == tag


def picture(seed: int, side: int = 32) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(noise, "L").resize((side, side), Image.Resampling.BICUBIC)


def collection(folder: Path, *found: Record, pictures_of: dict[str, int] | None = None) -> Path:
    for i, record in enumerate(found):
        path = folder / record.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture((pictures_of or {}).get(record.id, i)).save(path)
    records.write(found, folder)
    return folder


def patients(n: int) -> list[Record]:
    return [replace(BASE, id=f"clinic/{i}", file_name=f"images/clinic/{i}.png", patient=f"p{i}") for i in range(n)]


def page_of(home: Path, **settings) -> str:
    return overview.write(home, home.parent / "page.html", check.check(home), **settings).read_text()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def test_images_are_counted_by_type_split_finding_sex_and_age(tmp_path):
    found = [replace(BASE, findings={"pneumonia": True}, sex="female", age_years=34.0),
             replace(BASE, id="clinic/1", file_name="images/clinic/1.png", patient="p1", split="test",
                     findings={"pneumonia": False}, sex="male", age_years=99.0),
             replace(BASE, id="clinic/2", file_name="images/clinic/2.png", patient="p1", split="test", provenance=MADE)]
    held = census.census(collection(tmp_path / "home", *found))
    kind = held.kinds["chest_xray"]
    assert (held.n, held.synthetic, held.people) == (3, 1, 2)
    assert kind.split == {"train": 1, "test": 2}
    assert (kind.present["pneumonia"], kind.absent["pneumonia"]) == (1, 1)
    assert kind.sex == {"female": 1, "male": 1, None: 1}
    assert kind.age == {"30 to 39": 1, "90 and over": 1, None: 1}


def test_unknown_is_what_is_neither_present_nor_absent(tmp_path):
    found = patients(10)
    found[:4] = [replace(record, findings={"pneumonia": i > 0}) for i, record in enumerate(found[:4])]
    assert "pneumonia 3 1 6" in text_of(page_of(collection(tmp_path / "home", *found)))


def test_licences_are_summed_and_an_unstated_one_is_said(tmp_path):
    found = [*patients(2), replace(BASE, id="x/1", file_name="images/x/1.png", source="x", licence=None, patient="q")]
    words = text_of(page_of(collection(tmp_path / "home", *found)))
    assert "clinic CC0-1.0 2" in words and "x not stated 1" in words
    assert "The licence of 1 images is not stated" in words


def test_the_quarantine_is_summed_by_reason(tmp_path):
    home = collection(tmp_path / "home", *patients(1))
    row = '{"file": "a", "source": "clinic", "reason": "it is empty"}\n'
    (home / "quarantine.jsonl").write_text(row * 3 + "{broken\n")
    assert census.quarantined(home) == {("clinic", "it is empty"): 3, ("", "a line of quarantine.jsonl that is no JSON object"): 1}
    assert "4 files were kept out. source reason files clinic it is empty 3" in text_of(page_of(home))


def test_problems_stand_on_the_page(tmp_path):
    torn = [BASE, replace(BASE, id="clinic/1", file_name="images/clinic/1.png", split="test")]
    words = text_of(page_of(collection(tmp_path / "home", *torn)))
    assert "patient p0: stands in test and train" in words and "Nothing is wrong" not in words


def test_a_sound_collection_is_said_to_be_sound(tmp_path):
    assert "Nothing is wrong" in text_of(page_of(collection(tmp_path / "home", *patients(2))))


def test_near_identical_pictures_are_shown_in_groups(tmp_path):
    found = patients(4)
    home = collection(tmp_path / "home", *found, pictures_of={"clinic/3": 0})
    with ledger.noting(ledger.path_of(home, "clinic")) as note:
        for record in found:
            looked = Image.open(home / record.file_name)
            note(ledger.row_of(Path(record.file_name).stem, "s", duplicates.digest(record.id.encode()), looked, None))
    held = census.census(home)
    assert held.copies == [["clinic/0", "clinic/3"]] and held.compared == 4
    assert "4 pictures were compared, also mirrored and turned by right angles: 2 stand in 1 groups" in text_of(page_of(home))


def test_without_a_ledger_the_page_says_that_nothing_was_compared(tmp_path):
    assert "were not compared" in text_of(page_of(collection(tmp_path / "home", *patients(2))))


def test_images_of_patients_are_announced_and_can_be_left_out(tmp_path):
    home = collection(tmp_path / "home", *patients(2))
    shown, hidden = page_of(home), page_of(home, real_images=False)
    assert "This page shows images of patients" in shown and "Holds 2 images of patients" in shown
    assert "No image of a patient is shown" in hidden and "data:image" not in hidden


def test_synthetic_images_are_shown_without_a_warning(tmp_path):
    home = collection(tmp_path / "home", *(replace(record, provenance=MADE, patient=None) for record in patients(2)))
    page = page_of(home, real_images=False)
    assert "data:image/jpeg" in page and "No image of a patient is shown" in page


def test_the_page_loads_nothing_and_every_tag_is_closed(tmp_path):
    tags = Tags()
    tags.feed(page_of(collection(tmp_path / "home", *patients(3))))
    assert tags.open == [] and tags.loaded
    assert all(value.startswith(("data:image/", "#")) for value in tags.loaded)


def test_words_of_others_stay_words(tmp_path):
    evil = "<i onclick=alert(1)><script>x</script>"
    found = replace(BASE, source=evil, licence=evil, reading=evil, id=evil, findings={evil: True}, patient=evil)
    home = collection(tmp_path / "home", found)
    (home / "quarantine.jsonl").write_text('{"source": "<script>", "reason": "<i src=x>"}\n')
    tags = Tags()
    page = page_of(home)
    tags.feed(page)
    assert "script" not in tags.names and "<i onclick" not in page and "<i src" not in page


def test_the_same_seed_draws_the_same_page_and_another_draws_others(tmp_path):
    home = collection(tmp_path / "home", *patients(40))
    assert page_of(home) == page_of(home)
    assert census.census(home, 1).kinds["chest_xray"].sample != census.census(home, 2).kinds["chest_xray"].sample


def test_every_record_is_as_likely_to_be_sampled():
    import random
    rng, drawn = random.Random(5), np.zeros(20)
    for _ in range(3000):
        sample: list = []
        for i in range(20):
            census.keep(sample, i, 5, i + 1, rng)
        drawn[sample] += 1
    assert abs(drawn / 3000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 3000)


def test_a_sampled_prompt_is_understood_as_its_image_type(tmp_path):
    held = census.census(collection(tmp_path / "home", *patients(3)))
    assert len(held.said) == 3 and all(prompt for _, prompt in held.said)


def test_a_missing_and_a_broken_picture_do_not_stop_the_page(tmp_path):
    home = collection(tmp_path / "home", *patients(3))
    (home / "images/clinic/0.png").unlink()
    (home / "images/clinic/1.png").write_bytes(b"no picture")
    assert "1 of 3, drawn at random" in text_of(page_of(home))


def test_a_packed_collection_is_shown_like_the_one_it_was_packed_from(tmp_path):
    pytest.importorskip("pyarrow")
    from medisyn.data import packed
    home = collection(tmp_path / "home", *patients(3))
    packed.pack(home, tmp_path / "packed")
    assert pictures.chosen(tmp_path / "packed", {"clinic/1"})["clinic/1"].tobytes() == pictures.chosen(
        home, {"clinic/1"})["clinic/1"].tobytes()
    assert page_of(tmp_path / "packed").count("data:image") == page_of(home).count("data:image") == 1


def test_a_picture_outside_the_collection_is_not_opened(tmp_path):
    images.write_png(np.zeros((1, 4, 4), np.float32), tmp_path / "secret.png")
    records.write([replace(BASE, file_name="../secret.png")], tmp_path / "home")
    with pytest.raises(ValueError, match="inside the collection"):
        list(pictures.files(tmp_path / "home"))


def test_every_image_type_has_a_label(tmp_path):
    found = [replace(BASE, id=f"clinic/{name}", file_name=f"images/clinic/{name}.png", image_type=name, specialty=None)
             for name in vocabulary.IMAGE_TYPES]
    words = text_of(page_of(collection(tmp_path / "home", *found)))
    assert all(vocabulary.label(name) in words for name in vocabulary.IMAGE_TYPES)


def test_the_verb_draws_the_page_and_still_fails_where_something_is_wrong(tmp_path):
    from typer.testing import CliRunner

    from medisyn.cli import app
    sound, page = collection(tmp_path / "home", *patients(2)), tmp_path / "out" / "page.html"
    ran = CliRunner().invoke(app, ["check", str(sound), "--page", str(page), "--no-real-images"])
    assert ran.exit_code == 0, ran.output
    assert "No image of a patient is shown" in page.read_text()
    (sound / "images/clinic/0.png").unlink()
    assert CliRunner().invoke(app, ["check", str(sound), "--page", str(page)]).exit_code == 1
    assert "images/clinic/0.png is missing" in page.read_text()
