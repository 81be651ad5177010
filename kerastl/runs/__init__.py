"""The main job: data to a finished run directory, resumable; `Run` and its files."""
