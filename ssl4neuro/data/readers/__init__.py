"""Readers of ICA data, by the option of `ssl4neuro prepare ica` that names their source."""
