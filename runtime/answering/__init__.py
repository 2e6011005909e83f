"""A model behind HTTP that answers people: the tutorials' `PUT /generate`, and OpenAI's protocol.

  asked.py      a continuation that is wanted, and the reader of a JSON body's fields; pure
  prompts.py    texts and conversations to token ids, with the label line of a steered model
  reader.py     tokens to the text that a client reads, as they come
  tutorial.py   the body and the reply of `PUT /generate`
  openai.py     the bodies and replies of /v1/completions and /v1/chat/completions
  exchange.py   where requests wait for the ranks, and tokens for the clients
  app.py        what a URL means, who may ask, and what a bad request is told
  stream.py     an answer in pieces; a client that is slow or gone is let go
  ending.py     when a server ends
  rehearsal.py  requests that it puts to itself when it is ready
  group.py      the processes, from their plan to the last answer

The HTTP side runs in a thread of rank 0 and touches no tensor: the ranks (`runtime.algorithms.answer`) fetch
what is new before each step of the `Generator`, so requests of all clients share its batches. Torch stays
outside; `specc serve` starts it.
"""
