"""YAML files as documents that know the line of each value, the presets by name, and validation into pydantic models.

In: a path, a preset's name or a mapping. Out: a model, or one sentence that names the file, the line and the field.
"""
