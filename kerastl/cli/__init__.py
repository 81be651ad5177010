"""The commands: they parse, call the library, print."""
