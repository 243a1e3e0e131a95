"""The robustness benchmark behind `imc-lite bench`.

- `data`: pictures with questions, from the packaged edition or a folder
- `templates` asks about kind, part and cells, `asked` about findings, by the facts and wordings of `findings`
- `plan`: which pictures, questions and noises a run takes; `control`: which other picture stands in for one
- `conditions`: one condition judged; `run`: one after the other, resumable; `progress`: how long it will take
- `digest`: the code that answers depend on
- `report`: figures and intervals (`stats`) as `results.json`
- `tables`: Markdown, and the comparison of two runs
- `gallery`, `plots`, `page`: the HTML report
"""
