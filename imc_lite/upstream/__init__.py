"""Another server that answers: any that speaks OpenAI's chat API.

- `answering`: it answers in the place of a model; `chat`: one question about one picture
- `client`: `Upstream`, the one class that speaks to it; `told`: what it says; `errors`: what goes wrong
- `connection`: connections that end when nobody waits for what they bring
"""
