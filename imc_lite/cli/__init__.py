"""The `imc-lite` command.

- `main`: the entry point
- `models`, `bench`, `serve`: the commands of these names
"""
