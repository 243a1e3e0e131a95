"""imc-lite inside other people's tools.

- `lmms_eval`: as a model of lmms-eval
- `vlmevalkit`: as a model of VLMEvalKit
- `choices`: questions that list their possible answers
"""
