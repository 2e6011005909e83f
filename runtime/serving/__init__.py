"""Models behind HTTP: the Open Inference Protocol v2 with binary tensors, so that stock clients work.

  wire.py     tensors <-> the bytes of a request or a reply; pure
  desk.py     where requests wait for the ranks, and answers for the clients
  app.py      what a URL means, who may ask, and what a bad request is told
  names.py    what can be asked of a critic and a reward model
  server.py   the listening socket and its thread
  ranks.py    the processes behind the desk
  group.py    a group of processes that serves, from its plan to its end
  client.py   the other side: waits until a server is ready, repeats what is safe, never invents a number

The HTTP side runs in a thread of rank 0 and touches no tensor of the model: the ranks take a request from
the desk when they are free, all together, and lay the answer down. Numpy only; torch stays outside.
"""
