"""`imc-lite serve`: one question at a time per model, over HTTP, in the shape that OpenAI's clients speak.

- `settings`: limits and access, in one place
- `pool`: worker threads, a model each, and a bounded queue
- `guard`: what every request passes: key, size, time, admission, log line, metrics
- `schema`: requests and replies, as described at /openapi.json
- `pictures`: data URIs, and pictures fetched from hosts that are allowed
- `jobs`: what a worker does for each route
- `chat`, `app`: OpenAI's chat, and the routes
- `forward`: the routes with another server behind; `asked`: its requests, `mend`: what is done to them, `relay`: its
  replies
- `run`: the process: socket, signals, shutdown
- `page.html`: the page at /, complete in itself
"""
