"""Fitting prototypes to clean pictures and their noisy copies, in closed form.

- `build`: from a folder of pictures to prototypes
- `discriminant`: the matcher
- `bias_field`: the bias-field classifier
- `low_rank_map`: the low-rank maps, and the choice of remedies
- `crossfit`: folds, and the thresholds that all of these share
"""
