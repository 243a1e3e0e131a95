"""A gate: folders of pictures judged by the encoder alone, held to rules, compared with an earlier time.

No language model is loaded; `imc-lite inspect` is its command.

- `find`: the pictures below folders, and what is passed over
- `judge`: a verdict on each, read ahead while the encoder runs
- `rules`: `--fail-on`, which verdicts fail a picture
- `tally`: what is counted, and the summary
- `rows`: a verdict as text, JSON or CSV
- `baseline`: what is kept of a folder to compare later ones with
- `drift`: the comparison, by the tests of `statistics`
- `page`: the HTML report, with its `plots`
"""
