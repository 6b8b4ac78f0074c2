"""YAML files as documents with positions, and their validation into pydantic models.

In: a path or a mapping. Out: a model, or one sentence that names the file, the line and the field.
"""
