"""Ask everything behind a gateway by the openai package: the models that it lists, one question each.

make run                                       # in another terminal
pip install openai
python examples/gateway_openai.py [ADDRESS]
"""

import sys

from openai import APIError, OpenAI


def main(gateway: str) -> None:
    client = OpenAI(base_url=f"{gateway}/v1", api_key="any", max_retries=0)
    for model in client.models.list():
        if "/" not in model.id:
            continue  # the same, by a shorter name
        print(f"=== {model.id}")
        try:
            with client.chat.completions.create(
                model=model.id,
                messages=[{"role": "user", "content": "Hello"}],
                stream=True,
                stream_options={"include_usage": True},
            ) as stream:
                for chunk in stream:
                    if chunk.choices:
                        print(chunk.choices[0].delta.content or "", end="", flush=True)
                    elif chunk.usage:
                        print(f"\n{chunk.usage.total_tokens} tokens", end="")
        except APIError as error:
            print(f"\n{type(error).__name__}: {error}", end="")
        print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
