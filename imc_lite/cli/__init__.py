"""The `imc-lite` command.

- `main`: the entry point
- `options`: what several commands take
- `answer`, `noise`, `models`, `bench`, `serve`, `env`, `doctor`, `plan`: the commands
"""
