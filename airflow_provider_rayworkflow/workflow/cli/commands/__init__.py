"""The commands, each in a file of its name: how it is called, and what it does."""
