"""Records: a line says what is known, a collection is read as it was written, patients stay in their split."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from medisyn.data import records
from medisyn.data.provenance import Provenance
from medisyn.data.records import Record

FULL = Record(
    id="knee/1", file_name="images/knee/1.png", image_type="bone_xray", specialty="radiology", anatomy="knee",
    view="posteroanterior", laterality="left", findings={"osteoarthritis": True, "normal": False}, age_years=61.5,
    sex="female", text="Knee X-ray, “left” – Kniegelenk.", patient="0123456789abcdef", source="knee", licence="MIT",
    split="test", provenance=Provenance(
        prompt="a knee", read_as="Knee X-ray.", seed=7, steps=20, guidance=3.0, sampler="euler", style=None,
        model="sha256:0", model_name="xs", version="0.1"))
PLAIN = Record(id="a", file_name="images/a.png", image_type="mri")


def test_a_collection_is_read_as_it_was_written(tmp_path):
    records.write([FULL, PLAIN], tmp_path / "collection")
    assert list(records.read(tmp_path / "collection")) == [FULL, PLAIN]


def test_a_record_is_synthetic_exactly_when_it_carries_a_provenance():
    assert FULL.synthetic and not PLAIN.synthetic


def test_an_unknown_finding_is_missing_not_false():
    assert "glioma" not in records.from_line(records.as_line(PLAIN)).findings
    with pytest.raises(ValueError, match="left out where unknown"):
        records.from_line('{"id": "a", "file_name": "a.png", "image_type": "mri", "findings": {"glioma": null}}')


def test_writing_is_whole_or_not_at_all(tmp_path):
    records.write([PLAIN], tmp_path)

    def broken():
        yield FULL
        raise RuntimeError("the disk was pulled out")

    with pytest.raises(RuntimeError):
        records.write(broken(), tmp_path)
    assert list(records.read(tmp_path)) == [PLAIN]


@pytest.mark.parametrize("line, message", [
    ("{", "expected one JSON object a line"),
    ("[1]", "found list"),
    ('{"id": "a", "image_type": "mri"}', "missing file_name"),
    ('{"id": "a", "file_name": "a.png", "image_type": "mri", "sexx": "female"}', "did you mean 'sex'"),
    ('{"id": "a", "file_name": "a.png", "image_type": "mri", "split": "dev"}', "should be one of train, val, test"),
    ('{"id": "a", "file_name": "a.png", "image_type": "mri", "findings": {"glioma": 1}}', "findings are true or false"),
    ('{"id": "a", "file_name": "a.png", "image_type": "mri", "provenance": {"seed": 1}}', "this one lacks prompt"),
])
def test_a_wrong_line_is_named(tmp_path, line, message):
    (tmp_path / "metadata.jsonl").write_text(records.as_line(PLAIN) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        list(records.read(tmp_path))
    if "provenance" not in line:
        with pytest.raises(ValueError, match="line 3"):
            list(records.read(tmp_path))


def test_a_folder_that_is_no_collection_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="medisyn ingest"):
        list(records.read(tmp_path))


def test_a_line_stands_in_the_imagefolder_convention():
    row = json.loads(records.as_line(FULL))
    assert row["file_name"] == "images/knee/1.png" and row["text"].startswith("Knee X-ray, “left”")


def test_a_pseudonym_depends_on_source_patient_and_key():
    names = {records.pseudonym(source, patient, key) for source in "ab" for patient in "12" for key in (b"k", b"l")}
    assert len(names) == 8 and all(len(name) == 16 for name in names)
    assert records.pseudonym("a", "1") == records.pseudonym("a", "1")


def test_splits_hold_their_shares_of_patients():
    held = Counter(records.split_of(f"patient {n}") for n in range(20_000))
    for split, share in records.SPLIT_SHARES.items():
        assert held[split] / 20_000 == pytest.approx(share, abs=0.01)


def test_the_split_of_a_patient_is_known_for_ever():
    assert [records.split_of(name) for name in ("a", "b", "c", "d")] == [records.split_of(name) for name in "abcd"]
    assert records.split_of("a", b"one") != records.split_of("a", b"other") or any(
        records.split_of(str(n), b"one") != records.split_of(str(n), b"other") for n in range(50))


def test_counts_keep_absent_and_unknown_apart():
    table = records.counts([FULL, replace(FULL, id="b", findings={"normal": False}, split="train"), PLAIN])
    assert table["bone_xray"] == {"split": Counter(test=1, train=1), "present": Counter(osteoarthritis=1),
                                  "absent": Counter(normal=2)}
    assert table["mri"]["split"] == Counter(train=1)


def test_merged_collections_may_not_share_an_id(tmp_path):
    records.write([FULL], tmp_path / "one"), records.write([PLAIN], tmp_path / "two")
    assert [(folder.name, record) for folder, record in records.merge(tmp_path / "one", tmp_path / "two")] == [
        ("one", FULL), ("two", PLAIN)]
    with pytest.raises(ValueError, match="stands in both"):
        list(records.merge(tmp_path / "one", tmp_path / "one"))
