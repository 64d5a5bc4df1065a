"""The seeded simulation: the real Lua under a simulated clock, with every fault we could think of, beside a model.

`reference` says what must be true and knows no Redis; `world`, `clients`, `workers` and `chores` act on the broker and
compare each reply with it; `checks` compares Redis with it after every step; `mutants` breaks the scripts on purpose.
"""
