"""The command `simopen`: one module for each command, and what they share."""
