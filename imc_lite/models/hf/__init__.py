"""Vision-language models of the Hugging Face `transformers` library behind the `MLLM` protocol.

| module | what it holds |
|---|---|
| `families` | where each supported family keeps tower, projector and early hidden states |
| `model` | `HfMLLM` |
| `prompt` | questions as the model was trained to be asked |
| `load` | from a name, a folder or a loaded model to `HfMLLM`, quantized where wished |

Only this sub-package imports torch and transformers; it is itself imported when such a model is opened.
"""
