"""imc-lite inside other people's tools.

- `lmms_eval`: as a model of lmms-eval
"""
