"""Seeded noise, so that damage can be measured and repaired.

- `image`: seven image noises and four unseen ones, severities 1-5
- `text`: four text noises and four unseen ones
- `shorthand`: the table of clinical shorthand behind `text`
"""

BANK_VERSION = "1"
