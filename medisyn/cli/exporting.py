"""Verbs that hand images on in the forms of others: DICOM."""

from pathlib import Path
from typing import Annotated

import typer

from medisyn.cli.app import Json, Out, app, show, tell, ticker

export = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                     help="Hand images on in another form.\n\nExample: medisyn export dicom out/images -o out/dicom")
app.add_typer(export, name="export")


@export.callback()
def forms() -> None:
    """Hand images on in another form: dicom."""


@export.command()
def dicom(collection: Annotated[Path, typer.Argument(help="A folder with metadata.jsonl.")], out: Out,
          limit: Annotated[int | None, typer.Option(help="At most so many images, the first ones.")] = None,
          as_json: Json = False) -> None:
    """Write synthetic images as DICOM Secondary Captures that say they are synthetic; images of patients are never written.

    Example: medisyn export dicom out/first -o out/dicom
    """
    from medisyn.data import dicom_out
    done = dicom_out.export(collection, out, limit, ticker("export"))
    if as_json:
        return show({"out": str(out), "n_images": done.written, "patients": done.patients, "real_left_out": done.real,
                     "image_types": done.image_types, "index": str(out / dicom_out.INDEX)})
    if done.real:
        print(f"{done.real:,} real records were left out: images of patients are never written as DICOM")
    tell(f"wrote {done.written:,} DICOM files of {done.patients:,} made-up patients to {out}; "
         f"next: {out / dicom_out.INDEX} names the record of each")
