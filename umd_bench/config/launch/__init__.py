"""How stages are launched: the settings of a cluster and of Ray.

In: options and files of the user. Out: frozen settings; none of them is part of a key.
"""
