"""Declare a site of your own, and talk with it: a protocol at a place, with no code.

tolmach demo serve --port 8190                 # in another terminal
python examples/own_site.py [ADDRESS]
"""

import sys
from typing import ClassVar

from tolmach import AsyncGeneratorProvider, Client, ProviderModelMixin, register
from tolmach.protocols.wordpress.ai_engine import AIEngine


@register
class Shop(AsyncGeneratorProvider, ProviderModelMixin):
    """A shop whose page has AI Engine's widget."""

    url = "http://127.0.0.1:8190/Chatgpt4Online"
    protocol = AIEngine()
    default_model = "helper"
    models: ClassVar = [default_model]
    supports_message_history = True


def main() -> None:
    if len(sys.argv) > 1:
        Shop.url = f"{sys.argv[1]}/Chatgpt4Online"
    messages: list[dict[str, str]] = []
    with Client() as client:
        for question in ("My name is Ann.", "What is my name?"):
            messages.append({"role": "user", "content": question})
            answer = client.chat.completions.create(model="Shop/helper", messages=messages)
            text = answer.choices[0].message.content or ""
            messages.append({"role": "assistant", "content": text})
            print(f"> {question}\n{text}\n")


if __name__ == "__main__":
    main()
