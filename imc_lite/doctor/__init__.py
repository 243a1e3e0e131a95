"""What this machine and installation are, and whether they will do. Nothing here says whose they are.

- `machine`: processor, memory, disk, graphics cards, versions; nothing that it names is imported
- `check`: one finding
- `packages`: Python and packages against what this package asks for
- `hardware`: processor, memory, driver
- `runtime`: ONNX Runtime and torch at work
- `pictures`: every kind of picture decoded
- `model`: the cache, the default model's files, an answer
- `examine`: all of them, in order
"""
