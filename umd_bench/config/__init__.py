"""What a trial and a sweep are: frozen models, YAML with ``extends``, presets, and the keys of stages."""
