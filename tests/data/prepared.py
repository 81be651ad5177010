"""A data set of tensorflow-datasets as it lies on disk."""


def write_tfds(folder, images):
    """Prepare the data set "insects" of tensorflow-datasets: records and their metadata."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        }
    )
    target = folder / "insects" / "1.0.0"
    target.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="insects", version="1.0.0", data_dir=str(target), module_name="insects"
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features, supervised_keys=("image", "label")
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=100)
    counts = {"train": 20, "test": 6}
    writer.initialize_splits(list(counts))
    for part, count in counts.items():
        examples = [{"image": images[index], "label": index % 2} for index in range(count)]
        writer.add_examples({part: examples})
    writer.close_all()
