"""Images and labels from any source, as `tf.data`."""
