"""`python cli.py answer …` from a checkout: the `imc-lite` command, installed or not."""

from pathlib import Path

import imc_lite

# `kernels/` and `export/` stand beside the package here; an installation has them inside.
imc_lite.__path__.append(str(Path(__file__).resolve().parent))

from imc_lite.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
