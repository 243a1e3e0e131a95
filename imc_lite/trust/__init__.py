"""How sure an answer is, and whether the picture was looked at for it.

- `reliance.reliance`: what the picture adds to an answer, from one pass without it
- `confidence.Confidence`: the calibrated probability that an answer is right, and the file it is kept in
- `observe`, `fit`: a model's answers with known truth, clean and noisy, and the confidence fitted to them
"""
