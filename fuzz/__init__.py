"""Fuzzing: malformed bytes for everything that this package reads from outside.

- `target`: what a target is, and the contract that its reader keeps.
- `targets/`: the targets, one file per kind of reader. A new reader gets a target there.
- `mutators`: mutation that knows JSON, TOML, lines, safetensors and HTTP, so that inputs get past the first check.
- `seeds`: valid examples, written by the package's own writers.
- `one`: fuzzes one target, in a process of its own. Needs `atheris` (pip install "secformer[fuzz]").
- `__main__`: fuzzes all targets and records what was run: `python -m fuzz --help`.
- `corpus/NAME/`: inputs that reach different code, small. A test replays them without `atheris`.
"""
