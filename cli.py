"""`python cli.py answer …` from a checkout: the `imc-lite` command."""

from imc_lite.cli.main import main

if __name__ == "__main__":
    main()
