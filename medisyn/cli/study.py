"""Verbs of reader studies: a study is drawn, played by simulated readers, served to real ones, analyzed and exported."""

from pathlib import Path
from typing import Annotated

import typer

from medisyn.cli.app import Json, Out, app, show, tell, ticker

study = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Ask readers what they see in real and synthetic images.\n\n"
                         "Example: medisyn study new --real data/open:test --synthetic out/images -o out/study")
app.add_typer(study, name="study")
Folder = Annotated[Path, typer.Argument(help="A study, as `medisyn study new` wrote it.")]


@study.command()
def new(real: Annotated[str, typer.Option(help="Real images: a collection, or COLLECTION:test.")],
        synthetic: Annotated[str, typer.Option(help="Synthetic images: a collection.")],
        out: Out,
        design: Annotated[str, typer.Option(help="Or two-alternatives, alignment, quality.")] = "real-or-synthetic",
        cases: Annotated[int, typer.Option(help="Different cases, both arms together.")] = 100,
        readers: Annotated[int, typer.Option(help="Readers who are asked.")] = 5,
        repeats: Annotated[float, typer.Option(help="Share of the cases shown twice.")] = 0.1,
        margin: Annotated[float, typer.Option(help="How far from chance still counts as chance.")] = 0.1,
        side: Annotated[int | None, typer.Option(help="Pixels of every image; left out: 3/4 of the shortest side of any.")] = None,
        title: Annotated[str, typer.Option(help="What readers see at the top.")] = "",
        seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
        as_json: Json = False) -> None:
    """Draw a balanced, blinded study, and say how many readers and cases its question needs.

    Example: medisyn study new --real data/open:test --synthetic out/images --cases 100 --readers 5 -o out/study
    """
    from medisyn.reader_study import drawing, power
    made = drawing.new(drawing.Plan(design, cases, readers, repeats, seed, side, margin, title), real, synthetic, out,
                       ticker("stimuli"))
    different = sum(1 for truth in drawing.design.truth(made).values() if truth.repeat_of is None)
    tell("power: simulating studies of several sizes")
    told = power.advice(design, readers, different, margin)
    if as_json:
        return show({"out": str(out), "id": made.id, "design": design, "cases": different, "shown": len(made.cases),
                     "side": made.side, "readers": list(made.readers), "power": told})
    print(f"{out}: {different} cases, {len(made.cases) - different} of them shown twice, {readers} readers, "
          f"images of {made.side} px")
    if different < cases:
        print(f"the collections allow {different} balanced cases; {cases} were asked for")
    print("\n".join(power.sentences(told)))
    tell(f"next: medisyn study serve {out}, or play it first: medisyn study simulate {out} --readers {readers} -o {out}-played")


@study.command()
def simulate(folder: Folder, out: Out,
             readers: Annotated[int, typer.Option(help="Simulated readers.")] = 5,
             dprime: Annotated[float, typer.Option(help="Their mean d'; 0: they cannot tell.")] = 0.8,
             criterion: Annotated[float, typer.Option(help="Above 0: they rather say real.")] = 0.0,
             reader_sd: Annotated[float, typer.Option(help="Of d' between readers.")] = 0.2,
             case_sd: Annotated[float, typer.Option(help="Of what a case adds for all of them.")] = 0.5,
             seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
             as_json: Json = False) -> None:
    """Let readers of a given skill play a copy of a study, for planning and tests.

    Example: medisyn study simulate out/study --readers 5 --dprime 0.8 -o out/played
    """
    from medisyn.reader_study import design, simulation
    skill = simulation.Skill(dprime, criterion, reader_sd, case_sd)
    played = simulation.play(design.read(folder), out, skill, readers, seed)
    if as_json:
        return show({"out": str(out), "readers": readers, "responses": readers * len(played.cases),
                     "expected": simulation.expected(skill)})
    print(f"{out}: {readers * len(played.cases):,} responses of {readers} simulated readers")
    tell(f"next: medisyn study analyze {out} -o {out}/report")


@study.command("serve")
def serve_study(
        folder: Folder,
        host: Annotated[str, typer.Option(help="Address to listen on; all but this machine's own need --token.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8001,
        token: Annotated[str | None, typer.Option(help="Opens a page on how far the readers are; another one ends all sessions.",
                                                  envvar="MEDISYN_TOKEN")] = None,
        name: Annotated[list[str] | None, typer.Option(help="A host name that the server answers to besides its own.")] = None,
        new_links: Annotated[bool, typer.Option("--new-links", help="Give each reader another link; the old ones end.")] = False
        ) -> None:
    """Open the reading room: a link for each reader, a case a screen, answers kept as they come.

    Example: medisyn study serve out/study
    """
    from medisyn.reader_study import design, readers
    from medisyn.web.settings import KEEP_ALIVE, Settings, checked
    settings = checked(Settings(folder, host=host, port=port, token=token, names=tuple(name or ())))
    opened = design.read(folder)
    try:
        import uvicorn

        from medisyn.web.reading_room import create
    except ImportError as error:
        raise RuntimeError(f"the reading room needs {error.name}; pip install 'medisyn[web]'") from None
    made = create(settings)
    at = name[0] if name else f"[{host}]" if ":" in host else host
    if new_links or not all(design.load(folder / "readers.json", folder).get(reader) for reader in opened.readers):
        tell("a link for each reader; it opens the study as this reader, is shown only now, and only its hash is kept:")
        print("\n".join(f"{reader}\thttp://{at}:{port}/login#{told}" for reader, told in readers.issue(opened).items()), flush=True)
    else:
        tell("the readers' links are as they were given; --new-links makes others")
    tell(f"reading room: http://{at}:{port}/  ({len(opened.cases)} cases, {len(opened.readers)} readers; Ctrl+C ends it)")
    if token:
        tell(f"how far the readers are: http://{at}:{port}/login#{token}")
    uvicorn.run(made, host=host, port=port, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2,
                timeout_keep_alive=KEEP_ALIVE)


@study.command()
def analyze(folder: Folder, out: Out, as_json: Json = False) -> None:
    """Say what the responses of a study show: report.html and report.json, readers and cases as random effects.

    Example: medisyn study analyze out/study -o out/study/report
    """
    from medisyn.reader_study import analysis, design, report
    found = analysis.analyze(design.read(folder))
    path = report.write(found, out)
    told = report.as_dict(found)
    if as_json:
        return show(told)
    for note in told["notes"]:
        tell(f"note: {note}")
    for one in told["findings"]:
        print(f"{'!' if one['grave'] else '-'} {one['text']}")
    print(f"{told['responses']['n']:,} responses, unchanged since they were given; last hash {told['responses']['last_hash']}")
    tell(f"wrote {path} and {out / 'report.json'}; next: open {path} in a browser")


@study.command()
def export(folder: Folder,
           out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
           form: Annotated[str, typer.Option("--format", help="imrmc: reader,case,modality,score; csv: every response.")] = "imrmc"
           ) -> None:
    """Write the responses of a study for other programs. The file tells the truth of every case: not for readers.

    Example: medisyn study export out/study -o out/study.imrmc
    """
    from medisyn.reader_study import design, exports, responses
    from medisyn.reader_study.table import table
    if form not in ("imrmc", "csv"):
        raise typer.BadParameter(f"expected imrmc or csv, found {form!r}", param_hint="--format")
    opened = design.read(folder)
    truth, given = design.truth(opened), responses.read(opened)
    if not given:
        raise ValueError(f"{folder} has no responses yet")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(exports.imrmc(opened, table(opened, truth, given)) if form == "imrmc" else exports.plain(opened, truth, given),
                   encoding="utf-8")
    tell(f"wrote {out}")
