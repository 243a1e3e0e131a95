"""Fitting prototypes to clean pictures and their noisy copies, in closed form.

- `build`: from a folder of pictures to prototypes
- `discriminant`: the matcher
"""
