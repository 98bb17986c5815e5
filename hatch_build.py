"""Build the native kernel while recast is installed; without a C compiler it works all the same."""

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/recast/execution/values/native.c")
LIBRARY = SOURCE.with_name("libnative.so")
OPTIONS = ("-O3", "-Wall", "-Wextra", "-shared", "-fPIC")


class NativeKernel(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's is generic in vain
    """Compiles native.c into a library that lies beside it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the library into the wheel, which then is one for this platform; see hatchling."""
        del version
        root = Path(self.root)
        (root / LIBRARY).unlink(missing_ok=True)  # what cannot be built must not be yesterday's
        compiler = (
            shlex.split(os.environ.get("CC", ""))
            or [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]
        )
        command = [*compiler, *OPTIONS, "-o", str(root / LIBRARY), str(root / SOURCE)]
        try:
            if not compiler:
                raise FileNotFoundError("no C compiler")
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            self.app.display_warning(f"recast will be slower, without its native kernel: {said}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # it uses nothing of this Python
