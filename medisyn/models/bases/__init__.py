"""Pretrained bases: any diffusers folder of a known family, or our own model folder, as the same few functions.

    base = bases.load("path/to/stable-diffusion")     # or a hub id, or a MediSyn model folder
    told = base.read(["chest X-ray with pneumonia"])
    predicted = base.predict(x, timestep, told)

`medisyn.velocities` makes a rectified-flow velocity of it; nothing above this room knows a family.
"""

from medisyn.models.bases.base import Base, Told, to_channels
from medisyn.models.bases.families import FAMILIES
from medisyn.models.bases.folder import load
from medisyn.models.bases.shapes import shapes
from medisyn.models.bases.text import replace_text

__all__ = ["FAMILIES", "Base", "Told", "load", "replace_text", "shapes", "to_channels"]
