"""SMS: the language model, in several roles, repairs a damaged question or leaves it alone.

| module | role |
|---|---|
| `question` | can it be asked, and is it English? |
| `agents` | `repair` runs the hierarchy: assessor, proposers, verifier, arbiter |
| `assessor` | which words look damaged, and the model's own verdict on the whole |
| `proposers`, `channel` | candidates for a word, and what a slip of hand or scanner costs |
| `abbreviations` | short forms of charts, with all their readings |
| `verifier`, `metered` | how likely the model finds a reading; its work is counted and bounded |
| `arbiter` | the best reading, where it is sure and the guard agrees |
| `confusions`, `spaces`, `lost_words` | words that stand for others, lost and extra spaces, lost little words |
| `guard`, `opposites` | what may never change, whatever the model thinks |
| `lexicon`, `word_forms`, `symbols` | the words that need no repair, and what is no word at all |
| `selftest` | may this model propose repairs of its own? |
"""
