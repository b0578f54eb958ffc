"""Ask one service after another by the library, and print the answers as they stream.

tolmach demo serve --port 8190                 # in another terminal
python examples/streaming.py [ADDRESS]
"""

import asyncio
import sys

from tolmach import AsyncClient, Delta, Reasoning, TolmachError

SERVICES = {"Chatgpt4Online": "ai-engine", "aipkit": "aipkit"}


async def ask(demo: str, path: str, protocol: str, question: str) -> None:
    """Print what the service at the address answers; an error is one line that says what to do."""
    async with AsyncClient(base_url=f"{demo}/{path}", protocol=protocol) as client:
        try:
            async for event in client.events(messages=[{"role": "user", "content": question}]):
                match event:
                    case Delta(text):
                        print(text, end="", flush=True)
                    case Reasoning(text):
                        print(f"[{text}]", end="", flush=True)
        except TolmachError as error:
            print(f"\n{type(error).__name__}: {error}. {error.hint}", end="")
    print()


async def main(demo: str) -> None:
    for path, protocol in SERVICES.items():
        print(f"=== {path}")
        await ask(demo, path, protocol, "Why is the sky blue?")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8190"))
