"""Another server that answers: any that speaks OpenAI's chat API.

- `client`: `Upstream`, the one class that speaks to it
- `connection`: connections that end when nobody waits for what they bring
"""
