"""Transform: the smallest program there is, text in and text out, and the exact messages it sends.

python programs/transform.py                   with no model at all
python programs/transform.py llamacpp/qwen2.5-coder-0.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import Exemplar, ModelSpec, Predict, ScriptedLM, Session, open_model

shout = Predict(
    "text -> shouted",
    instruction="Write the text in capital letters.",
    exemplars=[Exemplar({"text": "good morning"}, {"shouted": "GOOD MORNING"})],
)


def main() -> None:
    """Show the messages, then ask."""
    for role, text in shout.request(text="hello there").messages:
        print(f"[{role}] {text}")
    scripted = ScriptedLM(lambda request: request.messages[-1][1].upper())
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", shout(text="hello there").shouted)


if __name__ == "__main__":
    main()
