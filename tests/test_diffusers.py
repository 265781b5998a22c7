"""A model folder opens in diffusers as well, and makes the same images there."""

import subprocess
import sys

import numpy as np
from PIL import Image

SCRIPT = """
import sys
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
made = pipe("chest X-ray with pneumonia", num_images_per_prompt=2, seed=5, num_inference_steps=3).images
for k, picture in enumerate(made):
    picture.save(f"{sys.argv[2]}/{k}.png")
"""


def test_the_same_prompt_and_seed_give_the_same_pixels_in_diffusers(phantom_run, maker, environment, tmp_path):
    folder = phantom_run / "model"
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), str(tmp_path)], env=environment | {"HF_HUB_OFFLINE": "1"},
                         capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    ours = maker.generate("chest X-ray with pneumonia", n=2, seed=5, steps=3)
    for k, made in enumerate(ours):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{k}.png")), np.asarray(made.picture))
    assert not np.array_equal(np.asarray(ours[0].picture), np.asarray(ours[1].picture))
