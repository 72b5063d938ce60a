"""optimizers: one algorithm a file; a frozen dataclass of settings whose ``start`` begins a search."""

from promptopt.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "abo": "promptopt.optimizers.abo:Abo",
        "ape": "promptopt.optimizers.ape:Ape",
        "bayesian_bootstrap": "promptopt.optimizers.bayesian_bootstrap:BayesianBootstrap",
        "best_of_seeds": "promptopt.optimizers.best_of_seeds:BestOfSeeds",
        "bootstrap_random_search": "promptopt.optimizers.bootstrap_random_search:BootstrapRandomSearch",
        "chain": "promptopt.optimizers.chain:Chain",
        "directional": "promptopt.optimizers.directional:Directional",
        "ease": "promptopt.optimizers.ease:Ease",
        "evo": "promptopt.optimizers.evo:Evo",
        "exemplar_search": "promptopt.optimizers.exemplar_search:ExemplarSearch",
        "instinct": "promptopt.optimizers.instinct:Instinct",
        "instructzero": "promptopt.optimizers.instructzero:InstructZero",
        "mipro": "promptopt.optimizers.mipro:Mipro",
        "mipro_plus": "promptopt.optimizers.mipro_plus:MiproPlus",
        "operator": "promptopt.optimizers.operator:OperatorMix",
        "opro": "promptopt.optimizers.opro:Opro",
        "protegi": "promptopt.optimizers.protegi:Protegi",
        "random_search": "promptopt.optimizers.random_search:RandomSearch",
        "reflective": "promptopt.optimizers.reflective:Reflective",
        "textgrad": "promptopt.optimizers.textgrad:Textgrad",
        "tpo": "promptopt.optimizers.tpo:Tpo",
        "zopo": "promptopt.optimizers.zopo:Zopo",
    },
    "promptopt.optimizers",
)
"""Optimizer name → its settings class."""
