"""A whole slide in DICOM made up for tests: floors of a pyramid, a label and the slide from afar, full of names."""

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE, MICRONS = 256, 0.5
NAME, MRN = "Plantagenetovic", "MRN778899"


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def item(**fields) -> Dataset:
    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def tiles(pixels: np.ndarray) -> list[np.ndarray]:
    """Squares of a picture, row by row; what lies outside is white."""
    high, wide = (-(-n // TILE) * TILE for n in pixels.shape[:2])
    whole = np.full((high, wide, 3), 255, np.uint8)
    whole[:pixels.shape[0], :pixels.shape[1]] = pixels
    return [whole[y:y + TILE, x:x + TILE] for y in range(0, high, TILE) for x in range(0, wide, TILE)]


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def image(pixels: np.ndarray, microns: float, flavour: str, series: str, compressed: bool, number: int, **tags) -> Dataset:
    """One file of a slide (PS3.3 A.32.8), with a plant in whatever names somebody."""
    made, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = UID(WHOLE_SLIDE), generate_uid()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.ImageType = ["ORIGINAL" if flavour == "VOLUME" else "DERIVED", "PRIMARY", flavour, "NONE"]
    made.Modality, made.StudyInstanceUID, made.SeriesInstanceUID = "SM", generate_uid(entropy_srcs=["study"]), series
    made.FrameOfReferenceUID, made.InstanceNumber, made.SeriesNumber = generate_uid(entropy_srcs=["frame"]), number, 1
    made.PatientName, made.PatientID, made.PatientBirthDate = f"{NAME}^JOHN", MRN, "19340229"
    made.PatientSex, made.PatientAge, made.StudyDate, made.StudyTime = "F", "093Y", "20180403", "101112"
    made.AccessionNumber = made.StudyID = MRN
    made.ReferringPhysicianName = made.OperatorsName = f"{NAME}^DOC"
    made.InstitutionName = made.StationName = made.StudyDescription = made.SeriesDescription = made.ImageComments = f"{NAME} Clinic"
    made.Manufacturer, made.ManufacturerModelName, made.DeviceSerialNumber, made.SoftwareVersions = NAME, NAME, MRN, NAME
    made.ContentDate, made.ContentTime, made.AcquisitionDateTime = "20180403", "101112", "20180403101112"
    made.ContainerIdentifier, made.BarcodeValue, made.LabelText = f"{NAME} {MRN}", MRN, f"{NAME} {MRN}"
    made.IssuerOfTheContainerIdentifierSequence, made.ContainerTypeCodeSequence = [], [coded("433466003", "SCT", NAME)]
    made.AcquisitionContextSequence = []
    stain = [item(ValueType="CODE", ConceptNameCodeSequence=[coded("424361007", "SCT", NAME)],
                  ConceptCodeSequence=[coded(code, "SCT", NAME)]) for code in ("12710003", "36879007")]
    made.SpecimenDescriptionSequence = [item(
        SpecimenIdentifier=f"{NAME} {MRN}", SpecimenUID=generate_uid(), IssuerOfTheSpecimenIdentifierSequence=[],
        SpecimenShortDescription=NAME, SpecimenDetailedDescription=f"{NAME} {MRN}",
        SpecimenPreparationSequence=[item(SpecimenPreparationStepContentItemSequence=stain)],
        PrimaryAnatomicStructureSequence=[coded("71854001", "SCT", NAME)])]
    made.Rows = made.Columns = TILE
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = pixels.shape[:2]
    made.TotalPixelMatrixFocalPlanes = made.NumberOfOpticalPaths = 1
    made.TotalPixelMatrixOriginSequence = [item(XOffsetInSlideCoordinateSystem=1.0, YOffsetInSlideCoordinateSystem=1.0)]
    made.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    made.ImagedVolumeWidth, made.ImagedVolumeHeight = (n * microns / 1000 for n in pixels.shape[1::-1])
    made.ImagedVolumeDepth, made.SpecimenLabelInImage = 0.001, "NO" if flavour == "VOLUME" else "YES"
    made.BurnedInAnnotation, made.VolumetricProperties, made.FocusMethod, made.ExtendedDepthOfField = "NO", "VOLUME", "AUTO", "NO"
    made.LossyImageCompression = "01" if compressed else "00"
    made.DimensionOrganizationType = "TILED_FULL"
    made.DimensionOrganizationSequence = [item(DimensionOrganizationUID=generate_uid())]
    measures = item(SliceThickness=0.001, PixelSpacing=[microns / 1000, microns / 1000])
    made.SharedFunctionalGroupsSequence = [item(
        PixelMeasuresSequence=[measures],
        WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=made.ImageType)],
        OpticalPathIdentificationSequence=[item(OpticalPathIdentifier="1")])]
    made.OpticalPathSequence = [item(
        OpticalPathIdentifier="1", OpticalPathDescription=NAME, IlluminationTypeCodeSequence=[coded("111744", "DCM", NAME)],
        IlluminationColorCodeSequence=[coded("414298005", "SCT", NAME)], ObjectiveLensPower=20.0)]
    made.SamplesPerPixel, made.PlanarConfiguration, made.PhotometricInterpretation = 3, 0, "YBR_FULL_422" if compressed else "RGB"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    frames = tiles(pixels)
    made.NumberOfFrames = len(frames)
    block = made.private_block(0x0009, f"{NAME} private", create=True)
    block.add_new(1, "LO", f"{NAME} {MRN}")
    made.PixelData = encapsulate(list(map(jpeg, frames))) if compressed else b"".join(frame.tobytes() for frame in frames)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = compressed
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def written(folder: Path, pixels: np.ndarray, microns: float = MICRONS, levels: int = 3, label: bool = True, **tags) -> list[Path]:
    """The files of a slide, the floors first, under names without a suffix; the finest floor in JPEG, the others as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names are longer than their elements allow
        return [saved(folder, one) for one in (files(pixels, microns, levels, label, tags))]


def files(pixels: np.ndarray, microns: float, levels: int, label: bool, tags: dict) -> list[Dataset]:
    series = generate_uid()
    made = [image(pixels[::2**n, ::2**n], microns * 2**n, "VOLUME", series, not n, n + 1, **tags) for n in range(levels)]
    if label:
        picture = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(picture).text((10, 40), f"{NAME}\n{MRN}", fill="black", font=ImageFont.load_default(32))
        made += [image(np.asarray(picture), 30.0, flavour, series, False, levels + n, SpecimenLabelInImage="YES")
                 for n, flavour in enumerate(("LABEL", "OVERVIEW"), 1)]
    return made


def saved(folder: Path, made: Dataset) -> Path:
    path = folder / f"{NAME}_{MRN}_{len(list(folder.iterdir()))}"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path
