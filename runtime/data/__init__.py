"""From files to samples: rows of JSON, their tokens, and which of them a step sees.

`rows` opens a data set whatever its form (`jsonl`, `parquet`, `hub`, `builtin`); `prompt_response` and
`conversations` turn a row into tokens and a loss mask; `tokenised` keeps those in flat files that every
rank maps into memory; `order` says which samples belong to a step, as a function of the step alone.
Every module refuses a bad row by file and line and says what was expected.
"""
