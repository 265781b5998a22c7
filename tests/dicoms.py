"""DICOM files made up for tests."""

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"


def dataset(pixels: np.ndarray, frames: int = 1, **tags) -> Dataset:
    """A DICOM object of uint8, uint16 or int16 pixels, (H, W), (H, W, 3) or (frames, H, W), with any further fields."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = UID(tags.pop("SOPClassUID", CT)), generate_uid()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3 and frames == 1
    made.Modality, made.PatientID = "CT", "MRN-1"
    made.Rows, made.Columns = pixels.shape[:2] if colour or frames == 1 else pixels.shape[1:3]
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tests write what should not be written
        for name, value in tags.items():
            setattr(made, name, value)
    return made


def written(made: Dataset, path: Path | None = None, **settings) -> bytes:
    """The bytes of a DICOM file, also written to a path where one is given."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(out, made, **{"enforce_file_format": True, **settings})
    if path is not None:
        path.write_bytes(out.getvalue())
    return out.getvalue()


def item(**fields) -> Dataset:
    """One item of a sequence."""
    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def encapsulated(made: Dataset, syntax: str, *codestreams: bytes) -> Dataset:
    """The same object with compressed frames."""
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate(list(codestreams))
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return made


def smooth(height: int = 40, width: int = 48, top: int = 4095, dtype: type = np.uint16) -> np.ndarray:
    """A ramp with a bump: every codec keeps it, and nothing is symmetric."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    bump = np.exp(-((y - 0.3) ** 2 + (x - 0.6) ** 2) * 20)
    return ((0.6 * x + 0.2 * y + 0.2 * bump) * top).astype(dtype)
