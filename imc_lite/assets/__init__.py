"""Files that ship with the package: the default model's trained weights and graph templates."""
