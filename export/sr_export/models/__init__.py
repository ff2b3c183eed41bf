"""Networks from weights: `recognize` by names or shapes of tensors, `custom` by the user's code.

`registry` has the known architectures. `layer_chain`, `topology`, `families` and `infer` recognize
plain networks, whatever the names of their layers. `network` describes what is exported, `ranges`
its pixel values; `generators` have random numbers as input. `rewrite` replaces parts of networks
that cannot be exported.
"""
