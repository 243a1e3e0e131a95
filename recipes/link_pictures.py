"""A folder of the pictures that the default model's prototypes are fitted to, for `imc-lite prototypes build`.

    python recipes/link_pictures.py --data DATA -o runs/clean
    imc-lite prototypes build -m runs/vit/checkpoint --images runs/clean -o runs/vit/prototypes.safetensors

Without those that the default model's prototypes see clean alone. Links to training pictures, never to test pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from build_prototypes import pictures
from sets import load_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--others", type=int, default=24, help="pictures of each set but VQA-RAD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    for number, path in enumerate(pictures(load_sets(args.data, "train"), args.others, args.seed)):
        (args.out / f"{number:04d}{path.suffix}").symlink_to(path.resolve())


if __name__ == "__main__":
    main()
