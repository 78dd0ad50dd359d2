"""Helpers that belong to no part of the toolbox: compatibility with the environment, version checks."""
