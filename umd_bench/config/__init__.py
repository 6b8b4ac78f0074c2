"""The configuration of trials and sweeps: frozen models, YAML with ``extends``, presets, and the keys of stages.

In: YAML files and ``--set`` options. Out: a ``Sweep`` of ``Trial``s whose stages are ``StageSpec``s with keys, or one sentence
that names the file, the line, the field, the value and the accepted values.
"""
