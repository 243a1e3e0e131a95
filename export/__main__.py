"""`python -m imc_lite.export` is `imc-lite export`."""

import sys

from imc_lite.cli.main import main

sys.argv.insert(1, "export")
main()
