"""Vision-language models of the Hugging Face `transformers` library behind the `MLLM` protocol.

| module | what it holds |
|---|---|
| `families` | the supported families: parts, processor, prompt, pictures and attention of each |
| `load` | from a name, a folder or a loaded model to `HfMLLM`, quantized where wished |
| `model` | `HfMLLM` |
| `parts` | the tower, its blocks and the projectors of a loaded model |

All but `families` import torch and transformers; they are imported when such a model is opened.
"""
