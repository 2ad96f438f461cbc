"""PyAV, which brings FFmpeg's libraries; asked for where a clip is, and not before."""

from __future__ import annotations

from typing import Any

from sr_deploy.core.errors import MissingPackage
from sr_deploy.core.host.install import pip_install


def import_av() -> Any:
    """The package ``av``.

    Raises:
        MissingPackage: it is not installed, or too old to write a clip's rotation.
    """
    todo = f"{pip_install('video')} (Python 3.11 or newer), or give raw frames by a pipe: -i - -o - --y4m"
    try:
        import av
    except ImportError as error:
        raise MissingPackage(f"clips need the package av, which does not import: {error}", "PyAV", todo) from error
    if int(av.__version__.split(".")[0]) < 18:
        raise MissingPackage(f"clips need a newer av than {av.__version__}", "PyAV 18 or newer", todo)
    return av
