"""SMS: the language model, in several roles, repairs a damaged question or leaves it alone.

| module | role |
|---|---|
| `agents` | assessor, verifier, arbiter; `repair` runs the hierarchy |
| `proposers` | candidates for a word: slips of the key, misread letters, shorthand; made only for the damage seen |
| `guard` | what may never change, whatever the model thinks |
| `lexicon` | the words that need no repair |
"""
