"""What a model takes, before it is fetched: parameters, disk, memory.

- `headers`: names, shapes and types of a checkpoint's tensors, from a folder, the hub's cache or the hub
- `estimate`: from those, or a bundle's manifest, to bytes on disk and in memory
"""
