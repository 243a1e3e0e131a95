"""PDC, Perturbation-aware Denoising Calibration: which noise a picture carries, and what makes up for it.

- `matcher`: which noise, how strong, and whether the kind of picture is known
- `bias_field`: clean, or shaded by a bias field
- `restorers`: pixels put right, by kind of noise
- `prototypes`: what was fitted, as a checked file
- `fit`: fitting it to clean pictures
"""
