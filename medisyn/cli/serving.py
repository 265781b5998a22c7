"""The verb of serving: pages and an API on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from medisyn.cli.app import Backend, ModelFolder, app, tell


@app.command()
def serve(host: Annotated[str, typer.Option(help="Address to listen on; all but this machine's own need --token.")] = "127.0.0.1",
          port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
          model: ModelFolder = None,
          folder: Annotated[Path, typer.Option(help="The collection of what is made, and the queue.")] = Path("out/studio"),
          database: Annotated[str, typer.Option(help="An SQLAlchemy URL, for example postgresql://user@host/name; "
                                                     "left out: SQLite in the folder.", envvar="MEDISYN_DATABASE")] = "",
          token: Annotated[str | None, typer.Option(help="What whoever uses it must know.", envvar="MEDISYN_TOKEN")] = None,
          name: Annotated[list[str] | None, typer.Option(help="A host name that the server answers to besides its own.")] = None,
          shown: Annotated[list[Path] | None, typer.Option("--show", help="A collection or a report that the pages show "
                                                                           "besides; may be given again.")] = None,
          backend: Backend = "torch") -> None:
    """Open the studio: compose prompts, make images, look at them, in a browser or from a program.

    Example: medisyn serve --folder out/studio --show out/report --backend openvino
    """
    from medisyn import shipped
    from medisyn.web.settings import KEEP_ALIVE, Settings, checked
    settings = checked(Settings(folder, shipped.folder(model), database, host, port, token, tuple(name or ()), tuple(shown or ()),
                                backend=backend))
    if backend != "torch":
        from medisyn.models import backends
        backends.checked(backend)   # before the worker, which would begin again and again
    try:
        import uvicorn

        from medisyn.web.app import create, worker
    except ImportError as error:
        raise RuntimeError(f"the studio needs {error.name}; pip install 'medisyn[web]'") from None
    at = f"[{host}]" if ":" in host else host
    tell(f"studio: http://{at}:{port}{f'/login?token={token}' if token else '/'}  (images in {folder}; Ctrl+C ends it)")
    uvicorn.run(create(settings, worker), host=host, port=port, log_level="warning", access_log=False, server_header=False,
                timeout_graceful_shutdown=2, timeout_keep_alive=KEEP_ALIVE)
