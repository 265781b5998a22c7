"""The command line: exit codes, one document on stdout, and words for people on stderr."""

import json
from pathlib import Path

import numpy as np
import phantoms
import pytest
from PIL import Image

import medisyn
from medisyn import synthesizer
from medisyn.data import images, records

VERBS = {"sources", "ingest", "check", "review", "pack", "unpack", "export", "understand", "train", "card", "runs", "doctor",
         "solver", "generate", "verify", "evaluate", "utility", "select", "study", "serve"}


@pytest.fixture
def model(maker, phantom_run, monkeypatch) -> Path:
    """The phantom model's folder, loaded once for all tests."""
    folder = phantom_run / "model"
    monkeypatch.setattr(medisyn, "load", lambda asked=None, backend="torch":
                        maker if asked == folder else synthesizer.load(asked, "0", backend))
    return folder


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*.png"))


# ---- a process of its own --------------------------------------------------------------------------------------------

def test_help_lists_every_verb(command):
    done = command("--help")
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_a_process_generates_and_another_verifies(command, phantom_run, tmp_path):
    model = phantom_run / "model"
    made = command("generate", "chest X-ray with pneumonia", "-n", 1, "--seed", 3, "--model", model, "-o", tmp_path, "--json")
    assert made.returncode == 0, made.stderr
    image, = json.loads(made.stdout)["images"]
    verified = command("verify", image["file"], "--model", model, "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["same"] is True


def test_a_failure_is_one_line_without_a_traceback(command, tmp_path):
    done = command("check", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    line, = done.stderr.splitlines()
    assert line.startswith("medisyn: ")
    assert "is not a collection" in line


# ---- exit codes ------------------------------------------------------------------------------------------------------

def test_the_verbs_are_these(call):
    code, out, _ = call("--help")
    assert code == 0
    listed = {line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.startswith("  ") and line[2] != " "}
    assert listed == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"Example: medisyn {verb}" in out


@pytest.mark.parametrize(("words", "said"), [
    (["generat"], "No such command"), (["generate"], "give one prompt, or --prompts"),
    (["generate", "a", "--prompts", "b"], "give one"), (["generate", "a", "-n", "0"], "-n"),
    (["generate", "a", "--seed", "-1"], "--seed"), (["generate", "a", "--stepz", "3"], "--stepz"),
    (["ingest", "busy", "x", "-o", "y"], "did you mean 'busi'?"), (["train", "x.toml"], "--out"),
    (["understand"], "Missing argument")])
def test_wrong_usage_is_two(call, words, said):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""
    assert said in err


@pytest.mark.parametrize(("words", "said"), [
    (["check", "nowhere"], "is not a collection"), (["generate", "a", "--model", "nowhere"], "is not a MediSyn model"),
    (["understand", "a", "--model", "nowhere"], "is not a MediSyn model"),
    (["train", "nowhere.toml", "-o", "x"], "there is no recipe"),
    (["verify", "nowhere.png"], "nowhere.png"), (["ingest", "busi", "nowhere", "-o", "x"], "nowhere")])
def test_work_that_fails_is_one(call, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)
    assert code == 1
    assert out == ""
    assert said in err
    assert err.startswith("medisyn: ")


# ---- verbs about data ------------------------------------------------------------------------------------------------

def test_sources_are_listed_for_people_and_for_programs(call):
    code, out, _ = call("sources", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"busi", "knee_oa_xray"} <= {row["name"] for row in rows}
    assert all(row["licence_evidence"] for row in rows if row["image_types"])
    assert len([line for line in call("sources")[1].splitlines() if not line.startswith(" ")]) == len(rows)
    assert all(row["download"] for row in rows if row["address"] and row["image_types"])


def breasts(folder: Path, n: int = 6) -> Path:
    for i in range(n):
        path = folder / f"Dataset_BUSI_with_GT/{('benign', 'malignant')[i % 2]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 6), np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(path)
    return folder


def test_a_dataset_is_ingested_and_found_in_order(call, tmp_path):
    code, out, err = call("ingest", "busi", breasts(tmp_path / "raw"), "-o", tmp_path / "c", "--workers", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["n_images"] == 6
    assert {r.image_type for r in records.read(tmp_path / "c")} == {"ultrasound"}
    code, out, err = call("check", tmp_path / "c", "--json")
    assert (code, json.loads(out)) == (0, [])


def test_a_collection_with_a_fault_is_one(call, tmp_path):
    home = phantoms.collection(tmp_path / "c", n=4)
    next((home / "images").iterdir()).unlink()
    code, out, err = call("check", home)
    assert code == 1
    assert "is missing" in out
    assert "1 problems" in err


def test_a_prompt_is_understood_aloud(call, model):
    code, out, _ = call("understand", "CXR, 4 y/o boy, pneumonia, no effusion", "--model", model)
    assert code == 0
    assert out.startswith("understood: chest X-ray, male, 4 years, pneumonia present, pleural effusion absent; trained on 0")
    assert "nearest known: chest X-ray, pneumonia present (10 images)" in out
    found = json.loads(call("understand", "CXR with pneumonia", "--model", model, "--json")[1])
    assert (found["image_type"], found["findings"], found["support"]) == ("chest_xray", {"pneumonia": True}, 10)


# ---- generate, verify ------------------------------------------------------------------------------------------------

def test_generate_writes_a_collection_and_says_where(call, model, tmp_path):
    code, out, err = call("generate", "chest X-ray with pneumonia", "-n", 2, "--seed", 7, "--model", model, "-o", tmp_path)
    assert code == 0, err
    assert "understood: chest X-ray, pneumonia present; trained on 10 such images" in err
    assert "warning" not in err
    assert (tmp_path / "contact-sheet.png").is_file()
    assert [r.provenance.seed for r in records.read(tmp_path)] == [7, 8]
    assert f"2 images in {tmp_path}" in out
    next_step = err.splitlines()[-1]
    assert next_step.startswith("next: medisyn verify ")
    assert Path(next_step.split()[-1]).is_file()


def test_one_document_stands_on_stdout_and_nothing_else(call, model, tmp_path):
    code, out, _ = call("generate", "dermoscopy of a melanoma", "-n", 2, "--model", model, "-o", tmp_path, "--json",
                        "--steps", 2, "--guidance", 1, "--sheet", "all.png")
    assert code == 0
    document = json.loads(out)
    assert document["sheet"] == str(tmp_path / "all.png")
    assert [Path(row["file"]) for row in document["images"]] == [tmp_path / r.file_name for r in records.read(tmp_path)]
    assert {row["image_type"] for row in document["images"]} == {"dermoscopy"}
    assert {(r.provenance.steps, r.provenance.guidance) for r in records.read(tmp_path)} == {(2, 1.0)}


def test_a_csv_of_prompts_is_one_collection(call, model, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,n,seed\nchest X-ray with pneumonia,2,5\ndermoscopy,,\n")
    code, out, _ = call("generate", "--prompts", path, "-n", 1, "--model", model, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert [(row["prompt"], row["seed"]) for row in json.loads(out)["images"]] == [
        ("chest X-ray with pneumonia", 5), ("chest X-ray with pneumonia", 6), ("dermoscopy", 0)]


def test_generate_goes_on_where_it_was_interrupted(call, model, tmp_path, monkeypatch):
    words = ["generate", "dermoscopy", "-n", 3, "--model", model, "-o", tmp_path]
    made, make = [], synthesizer.Synthesizer.make

    def interrupted(self, plan, how):
        if len(made) == 2:
            raise RuntimeError("the lights went out")
        made.append(how.seed)
        return make(self, plan, how)

    monkeypatch.setattr(synthesizer.Synthesizer, "make", interrupted)
    assert call(*words)[0] == 1
    kept = {path: path.read_bytes() for path in pictures(tmp_path)}
    assert len(kept) == 2
    made.clear()
    assert call(*words)[0] == 0
    assert made == [2]
    assert len(pictures(tmp_path)) == len(list(records.read(tmp_path))) == 3
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize(("prompt", "said"), [
    ("a purple banana", "no image type was understood"),
    ("chest X-ray with cardiomegaly", "the nearest known one is: chest X-ray")])
def test_a_doubt_is_a_warning_and_an_error_where_that_was_asked(call, model, tmp_path, prompt, said):
    words = ["generate", prompt, "-n", 1, "--model", model, "-o", tmp_path]
    code, _, err = call(*words, "--strict")
    assert code == 1
    assert said in err
    assert "leave --strict out" in err
    assert not (tmp_path / "images").exists()
    code, _, err = call(*words)
    assert code == 0
    assert f"warning: {'no' if 'banana' in prompt else 'no training'}" in err


def test_verify_tells_a_true_image_from_a_tampered_one(call, model, tmp_path):
    call("generate", "chest X-ray", "-n", 1, "--model", model, "-o", tmp_path)
    path, = pictures(tmp_path)
    code, out, _ = call("verify", path, "--model", model)
    assert code == 0
    assert "prompt      chest X-ray" in out
    assert out.endswith("the same image, pixel for pixel\n")
    pixels = np.asarray(images.decode(path)).copy()
    pixels[:4, :4] = 255 - pixels[:4, :4]
    path.write_bytes(images.png_bytes(Image.fromarray(pixels), images.read_provenance(path)))
    code, out, _ = call("verify", path, "--model", model)
    assert code == 1
    assert "DIFFERS: 1.56% of the pixels" in out
    assert json.loads(call("verify", path, "--model", model, "--json")[1])["same"] is False


def test_verify_refuses_what_carries_no_provenance(call, model, tmp_path):
    bare, text = tmp_path / "bare.png", tmp_path / "text.png"
    Image.new("L", (8, 8)).save(bare)
    text.write_text("no picture")
    code, _, err = call("verify", bare, "--model", model)
    assert code == 1
    assert "carries no provenance" in err
    code, _, err = call("verify", text, "--model", model)
    assert code == 1
    assert "expected a PNG" in err


# ---- train -----------------------------------------------------------------------------------------------------------

def test_a_dry_run_trains_nothing(call, phantom_recipe, tmp_path):
    code, out, _ = call("train", phantom_recipe, "-o", tmp_path / "run", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["text", "vae", "dit"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--stages", "vea"], 2, "unknown stage 'vea'"), (["--set", "dit.dept=3"], 1, "did you mean 'depth'?"),
    (["--resume", "nowhere"], 1, "nowhere holds no recipe.json"), (["--stages", "dit"], 1, "stage text is not finished")])
def test_a_training_that_cannot_begin_says_why(call, phantom_recipe, tmp_path, words, code, said):
    ended, out, err = call("train", phantom_recipe, "-o", tmp_path / "run", *words)
    assert ended == code
    assert out == ""
    assert said in err


def test_a_finished_run_is_passed_over_and_its_model_written_again(call, phantom_recipe, phantom_run, tmp_path):
    code, out, err = call("train", phantom_recipe, "-o", tmp_path / "run", "--resume", phantom_run, "--stages", "model")
    assert code == 0, err
    assert out == ""
    assert f"wrote {tmp_path / 'run' / 'model'}; next: medisyn generate" in err
    again, before = (synthesizer.load(folder / "model").model.digest for folder in (tmp_path / "run", phantom_run))
    assert again == before
