"""The names that fields of a recipe can have; the help of the commands reads them without NumPy."""

SCENARIOS = ("small_similar", "large_similar", "small_different", "large_different")
PUBLISHED = ("guide", "fastai", "bit", "scratch")
OBJECTIVES = ("accuracy", "balanced_accuracy", "macro_f1")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
AUGMENTATION_NAMES = ("none", "flip", "light", "medium", "strong")
